<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Component\Datetime\TimeInterface;
use Drupal\Core\Cache\CacheBackendInterface;
use Drupal\Core\Datetime\DateFormatterInterface;
use Drupal\Core\Extension\Requirement\RequirementSeverity;
use Drupal\Core\StringTranslation\StringTranslationTrait;
use Drupal\Core\StringTranslation\TranslationInterface;
use Drupal\Core\Url;
use PushServer\Check;
use PushServer\CheckStatus;
use PushServer\Client;
use Symfony\Component\HttpFoundation\RequestStack;

/**
 * Goes the way from the site to the push server, and says where it ends.
 */
final class Health {

  use StringTranslationTrait;

  /**
   * The status report is also asked by other pages, which must not wait.
   */
  private const CACHE_SECONDS = 60;
  private const CACHE_ID = 'push_server:checks';

  /**
   * Severities of the status report, as numbers and as Drupal 11.2 has them.
   */
  private const SEVERITIES = ['ok' => 0, 'skipped' => 0, 'warning' => 1, 'error' => 2];

  public function __construct(
    private readonly ClientFactory $clients,
    private readonly CacheBackendInterface $cache,
    private readonly TimeInterface $time,
    private readonly DateFormatterInterface $dateFormatter,
    private readonly RequestStack $requestStack,
    TranslationInterface $stringTranslation,
  ) {
    $this->setStringTranslation($stringTranslation);
  }

  /**
   * What is between the site and its push server, one check after the other.
   *
   * @return list<\PushServer\Check>
   *   In the order of the way; takes seconds at worst.
   */
  public function checks(Client $client): array {
    $checks = $client->testConnection($this->requestStack->getMainRequest()?->getHttpHost());
    if (isset($checks['spool'])) {
      $checks['spool'] = $this->spool();
    }
    return array_values($checks);
  }

  /**
   * What a check is called on a page.
   */
  public function title(string $check): string {
    return (string) match ($check) {
      'settings' => $this->t('Settings'),
      'names' => $this->t('Name of the push host'),
      'port' => $this->t('Port'),
      'tls' => $this->t('Certificate'),
      'push_host' => $this->t('The way to the push server'),
      'agent_cluster' => 'document.domain',
      'frame' => $this->t('Embedding'),
      'token_key' => $this->t('Token key'),
      'forwarded' => $this->t("Visitor's address"),
      'streaming' => $this->t('Streaming'),
      'api' => $this->t('Internal API'),
      'api_key' => $this->t('API key'),
      'api_private' => $this->t('Privacy of the API'),
      'clock' => $this->t('Clocks'),
      'versions' => $this->t('Versions'),
      'speed' => $this->t('Speed'),
      'spool' => $this->t('What waits to be sent'),
      'after_response' => $this->t('Sending after the page'),
      default => $check,
    };
  }

  /**
   * The lines of the status report: each hop that fails, or that all is well.
   *
   * @return array<string, array<string, mixed>>
   *   Requirements by name.
   */
  public function requirements(): array {
    $requirements = [];
    foreach ($this->recent() as $name => [$status, $message]) {
      if (self::SEVERITIES[$status] > 0) {
        $requirements["push_server_$name"] = [
          'title' => $this->t('Push server: @check', ['@check' => $this->title($name)]),
          'value' => $status === 'error' ? $this->t('Does not work') : $this->t('Needs attention'),
          'description' => [
            '#markup' => $this->t('@message <a href=":url">Settings and connection test</a>', [
              '@message' => $message,
              ':url' => Url::fromRoute('push_server.settings')->toString(),
            ]),
          ],
          'severity' => self::severity(self::SEVERITIES[$status]),
        ];
      }
    }
    return $requirements ?: [
      'push_server' => [
        'title' => $this->t('Push server'),
        'value' => $this->t('Connected'),
        'severity' => self::severity(0),
      ],
    ];
  }

  /**
   * The checks, at most a minute old.
   *
   * @return array<string, array{string, string}>
   *   Status and message by name.
   */
  private function recent(): array {
    $kept = $this->cache->get(self::CACHE_ID);
    if ($kept) {
      return $kept->data;
    }
    $checks = [];
    foreach ($this->checks($this->clients->client()) as $check) {
      $checks[$check->name] = [$check->status->value, $check->message];
    }
    $this->cache->set(self::CACHE_ID, $checks, $this->time->getCurrentTime() + self::CACHE_SECONDS, [
      'config:push_server.settings',
    ]);
    return $checks;
  }

  /**
   * What waits in the database.
   */
  private function spool(): Check {
    [$number, $oldest] = $this->clients->spool()->backlog();
    if ($oldest === NULL) {
      return new Check('spool', CheckStatus::Ok, (string) $this->t('Nothing waits to be sent.'));
    }
    $age = max(0, $this->time->getCurrentTime() - $oldest);
    $message = $this->formatPlural(
      $number,
      '1 command waits to be sent, for @time now.',
      '@count commands wait to be sent, the oldest for @time now.',
      ['@time' => $this->dateFormatter->formatInterval($age)],
    );
    return new Check('spool', CheckStatus::Warning, (string) $message);
  }

  /**
   * A severity as this version of Drupal takes it.
   */
  private static function severity(int $number): mixed {
    return enum_exists(RequirementSeverity::class) ? RequirementSeverity::from($number) : $number;
  }

}
