<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\push_server\Notification\CommentNotifier;
use Drupal\push_server\Notification\MessageNotifier;
use Drupal\push_server\Notification\Notifier;
use Psr\Log\LoggerInterface;

/**
 * Does what was collected: after the response, or in a queue worker.
 *
 * Every job is a kind and plain data. One that fails is named in the log, and
 * the others are done all the same.
 */
final class JobRunner {

  public function __construct(
    private readonly ClientFactory $clients,
    private readonly Notifier $notifier,
    private readonly CommentNotifier $comments,
    private readonly MessageNotifier $messages,
    private readonly LoggerInterface $logger,
  ) {}

  /**
   * Do these jobs, in their order.
   *
   * @param list<array{string, array<string, mixed>}> $jobs
   *   Kinds and data.
   */
  public function run(array $jobs): void {
    foreach ($jobs as [$kind, $data]) {
      try {
        match ($kind) {
          'publish' => $this->clients->client()->publish($data['channel'], $data['data'], $data['id']),
          'notify' => $this->notifier->notify(...$data),
          'announce' => $this->notifier->announce(...$data),
          'comment' => $this->comments->handle(...$data),
          'contact' => $this->messages->contact(...$data),
          'private_message' => $this->messages->privateMessage(...$data),
        };
      }
      catch (\Throwable $failure) {
        $this->logger->error('A notification (@kind) failed: @message', [
          '@kind' => $kind,
          '@message' => $failure->getMessage(),
        ]);
      }
    }
  }

}
