<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Database\Connection;
use Drupal\Core\DestructableInterface;
use Drupal\Core\Queue\QueueFactory;
use Psr\Log\LoggerInterface;

/**
 * Collects what a request has to tell the push server, for after the response.
 *
 * - What is added inside a database transaction counts when that is committed.
 *   A save that is rolled back publishes nothing.
 * - Everything is done in destruct(), when the visitor has the page: finding
 *   out who is to be notified, rendering it, and sending it all in one call.
 *   With the setting "queue" that is left to the queue push_server_jobs, except
 *   revocations, which never wait.
 * - Nothing that goes wrong here reaches the page.
 */
final class Outbox implements DestructableInterface {

  public const QUEUE = 'push_server_jobs';

  /**
   * Jobs after which a long import does what it has.
   */
  private const FULL = 200;

  /**
   * Jobs may make jobs; this often is enough for any sane case.
   */
  private const ROUNDS = 3;

  /**
   * What is to be done: lists of a kind and its data.
   *
   * @var list<array{string, array<string, mixed>}>
   */
  private array $jobs = [];

  /**
   * Whether PHP will call destruct() when everything else has ended.
   */
  private bool $isScheduled = FALSE;

  public function __construct(
    private readonly Connection $database,
    private readonly JobRunner $runner,
    private readonly ClientFactory $clients,
    private readonly QueueFactory $queues,
    private readonly ConfigFactoryInterface $configFactory,
    private readonly LoggerInterface $logger,
  ) {}

  /**
   * Have something done after the response, if what led to it is committed.
   *
   * @param string $kind
   *   What JobRunner knows.
   * @param array<string, mixed> $data
   *   Scalars and arrays, because it may wait in a queue.
   */
  public function add(string $kind, array $data): void {
    $this->afterCommit(function () use ($kind, $data): void {
      $this->jobs[] = [$kind, $data];
      if (count($this->jobs) >= self::FULL) {
        $this->destruct();
      }
    });
  }

  /**
   * End connections, of a session or of all sessions of a user.
   */
  public function revoke(#[\SensitiveParameter] ?string $sessionId = NULL, ?string $user = NULL): void {
    $this->afterCommit(function () use ($sessionId, $user): void {
      $this->clients->client()->revoke($sessionId, $user);
    });
  }

  /**
   * Help to send what waits, when this request is done.
   *
   * A call is all that is needed: being in use, this service is destructed.
   */
  public function help(): void {
    $this->schedule();
  }

  /**
   * {@inheritdoc}
   */
  public function destruct(): void {
    try {
      if ($this->jobs) {
        // A revocation must not be lost because a job comes to a bad end.
        $this->flush();
      }
      $isQueued = $this->configFactory->get('push_server.settings')->get('delivery') === 'queue';
      for ($round = 0; $this->jobs && $round < self::ROUNDS; $round++) {
        $jobs = $this->jobs;
        $this->jobs = [];
        if ($isQueued) {
          $this->queues->get(self::QUEUE)->createItem($jobs);
        }
        else {
          $this->runner->run($jobs);
        }
      }
      $this->flush();
    }
    catch (\Throwable $failure) {
      // The services after this one are destructed, too.
      $this->logger->error('Nothing was pushed: @message', ['@message' => $failure->getMessage()]);
    }
  }

  /**
   * Send what was collected, if anything was.
   */
  private function flush(): void {
    if ($this->clients->isInUse()) {
      $this->clients->client()->flush();
    }
  }

  /**
   * Call this when the database has it for good.
   */
  private function afterCommit(\Closure $call): void {
    $this->schedule();
    if (!$this->database->inTransaction()) {
      $call();
      return;
    }
    $this->database->transactionManager()->addPostTransactionCallback(
      static function (bool $success) use ($call): void {
        if ($success) {
          $call();
        }
      }
    );
  }

  /**
   * Make sure that destruct() is called even where the kernel is not ended.
   *
   * Drush does not end it, and neither does what calls exit, as the logouts of
   * single sign-ons do. Registered twice, so that it runs after every function
   * that others register, and with what they add.
   */
  private function schedule(): void {
    if (!$this->isScheduled) {
      $this->isScheduled = TRUE;
      register_shutdown_function(fn () => register_shutdown_function($this->destruct(...)));
    }
  }

}
