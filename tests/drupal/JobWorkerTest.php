<?php

declare(strict_types=1);

namespace PushServer\Tests\Drupal;

use Drupal\Core\Database\Connection;
use Drupal\Core\Lock\LockBackendInterface;
use Drupal\Core\Queue\QueueFactory;
use Drupal\Core\Site\Settings;
use Drupal\push_server\ClientFactory;
use Drupal\push_server\JobRunner;
use Drupal\push_server\Outbox;
use Drupal\push_server\Plugin\QueueWorker\JobWorker;
use PHPUnit\Framework\TestCase;
use Psr\Log\AbstractLogger;
use Psr\Log\NullLogger;

/**
 * Stand-ins: an item of the queue, while the push server and the database are away.
 */
final class JobWorkerTest extends TestCase
{
    public function testAnItemIsDoneOnceWhateverBecomesOfIt(): void
    {
        $database = new class extends Connection {
            /**
             * @param list<mixed> $arguments
             */
            public function __call(string $name, array $arguments): never
            {
                throw new \RuntimeException('The database is locked.');
            }
        };
        $lock = new class implements LockBackendInterface {
        };
        $log = new class extends AbstractLogger {
            /** @var list<string> */
            public array $lines = [];

            /**
             * @param array<string, mixed> $context
             */
            public function log($level, $message, array $context = []): void
            {
                $this->lines[] = strtr((string) $message, array_map('strval', $context));
            }
        };
        $folder = sys_get_temp_dir() . '/push-test-' . bin2hex(random_bytes(6));
        // Port 9 is refused at once.
        $settings = new Settings(['push_server' => [
            'url' => 'http://127.0.0.1:9',
            'api' => 'http://127.0.0.1:9',
            'token_key' => str_repeat('t', 32),
            'api_key' => 'whsec_' . base64_encode(str_repeat('a', 32)),
            // Other runs share no pause with this one.
            'spool' => $folder,
        ]]);
        $clients = new ClientFactory(Parts::config(), $settings, $database, $lock, new NullLogger());
        $clients->client()->publish('a', 1);
        $runner = (new \ReflectionClass(JobRunner::class))->newInstanceWithoutConstructor();
        $outbox = new Outbox($database, $runner, $clients, new QueueFactory(), Parts::config(), $log);
        $worker = (new \ReflectionClass(JobWorker::class))->newInstanceWithoutConstructor();
        foreach (['runner' => $runner, 'outbox' => $outbox] as $name => $value) {
            $property = new \ReflectionProperty($worker, $name);
            $property->setAccessible(true);
            $property->setValue($worker, $value);
        }
        // An item whose worker throws is done again, and users would be notified twice.
        try {
            $worker->processItem([]);
        } finally {
            array_map(unlink(...), glob("$folder/*") ?: []);
            rmdir($folder);
        }
        self::assertSame(['Nothing was pushed: The database is locked.'], $log->lines);
    }
}
