<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Database\Connection;
use Drupal\Core\Lock\LockBackendInterface;
use Drupal\Core\Site\Settings;
use Psr\Log\LoggerInterface;
use PushServer\Client;

/**
 * Makes the client of the push server, with the settings of this site.
 *
 * The secrets are never in the configuration that a site exports. They come
 * from $settings['push_server'] in settings.php, else from the environment,
 * else from the Key module, of which the configuration has the ids only.
 */
final class ClientFactory {

  /**
   * Settings that may come from the environment, there as PUSH_URL and so on.
   */
  private const FROM_ENVIRONMENT = ['url', 'api', 'token_key', 'api_key'];

  /**
   * Settings of the client that are in the configuration under their name.
   */
  private const FROM_CONFIG = ['url', 'api', 'spool_seconds'];

  /**
   * The client of this request.
   */
  private ?Client $client = NULL;

  public function __construct(
    private readonly ConfigFactoryInterface $configFactory,
    private readonly Settings $settings,
    private readonly Connection $database,
    private readonly LockBackendInterface $lock,
    private readonly LoggerInterface $logger,
    private readonly ?object $keys = NULL,
  ) {
    require_once dirname(__DIR__) . '/lib/client/autoload.php';
  }

  /**
   * The one client of this request. Its settings are read once.
   */
  public function client(): Client {
    return $this->client ??= $this->create();
  }

  /**
   * Whether anything has asked for the client in this request.
   */
  public function isInUse(): bool {
    return $this->client !== NULL;
  }

  /**
   * A client of its own, for instance with settings that are not saved yet.
   *
   * @param array<string, mixed> $changes
   *   Settings that replace those in the configuration.
   */
  public function create(array $changes = []): Client {
    $log = function (string $level, string $message): void {
      $this->logger->log($level, '@message', ['@message' => $message]);
    };
    return Client::create($this->settings($changes), $log, $this->spool(), FALSE);
  }

  /**
   * Where commands wait while the push server is away.
   */
  public function spool(): DatabaseSpool {
    return new DatabaseSpool($this->database, $this->lock);
  }

  /**
   * The settings of the client, put together from all places.
   *
   * @param array<string, mixed> $changes
   *   Settings that replace those in the configuration.
   *
   * @return array<string, mixed>
   *   As Client::create() takes them.
   */
  public function settings(#[\SensitiveParameter] array $changes = []): array {
    $config = $this->configFactory->get('push_server.settings');
    $values = ['name' => 'drupal'];
    foreach (self::FROM_CONFIG as $name) {
      $values[$name] = $config->get($name);
    }
    foreach (['token_key', 'api_key'] as $name) {
      $id = (string) ($changes["{$name}_id"] ?? $config->get("{$name}_id"));
      $key = $id === '' ? NULL : $this->keys?->getKey($id)?->getKeyValue();
      if (is_string($key) && trim($key) !== '') {
        $values[$name] = trim($key);
      }
      unset($changes["{$name}_id"]);
    }
    return $this->fixed() + $changes + array_filter($values, static fn (mixed $value): bool => $value !== NULL);
  }

  /**
   * The settings of settings.php and the environment, which no form changes.
   *
   * @return array<string, mixed>
   *   Values by name.
   */
  public function fixed(): array {
    $values = array_filter(
      (array) $this->settings->get('push_server', []),
      static fn (mixed $value): bool => $value !== '' && $value !== NULL,
    );
    foreach (self::FROM_ENVIRONMENT as $name) {
      $value = getenv('PUSH_' . strtoupper($name));
      if ($value !== FALSE && $value !== '') {
        $values += [$name => $value];
      }
    }
    return $values;
  }

}
