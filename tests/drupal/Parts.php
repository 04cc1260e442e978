<?php

declare(strict_types=1);

namespace PushServer\Tests\Drupal;

use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Database\Connection;
use Drupal\Core\Lock\LockBackendInterface;
use Drupal\Core\Site\Settings;
use Drupal\push_server\ClientFactory;
use Psr\Log\NullLogger;

/**
 * Parts of the module on stand-ins for Drupal.
 */
final class Parts
{
    /**
     * The configuration as it is installed, with changes.
     *
     * @param array<string, mixed> $changes
     */
    public static function config(array $changes = []): ConfigFactoryInterface
    {
        $values = $changes + (array) \Symfony\Component\Yaml\Yaml::parseFile(
            MODULE . '/config/install/push_server.settings.yml'
        );
        return new class ($values) implements ConfigFactoryInterface {
            /**
             * @param array<string, mixed> $values
             */
            public function __construct(private array $values)
            {
            }

            public function get($name)
            {
                return $name === 'push_server.settings' ? $this : ($this->values[$name] ?? null);
            }
        };
    }

    /**
     * @param array<string, mixed> $settings of settings.php
     * @param array<string, mixed> $config
     */
    public static function clients(array $settings = [], array $config = [], ?object $keys = null): ClientFactory
    {
        $lock = new class implements LockBackendInterface {
        };
        return new ClientFactory(
            self::config($config),
            new Settings(['push_server' => $settings]),
            new Connection(),
            $lock,
            new NullLogger(),
            $keys
        );
    }
}
