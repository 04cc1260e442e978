<?php

declare(strict_types=1);

namespace PushServer\Tests\Drupal;

use Drupal\Core\Cache\CacheableResponseInterface;
use Drupal\Core\Database\Connection;
use Drupal\Core\Entity\EntityInterface;
use Drupal\Core\Lock\LockBackendInterface;
use Drupal\Core\PrivateKey;
use Drupal\Core\Queue\QueueFactory;
use Drupal\Core\Routing\AdminContext;
use Drupal\Core\Session\AccountInterface;
use Drupal\push_server\Bridge;
use Drupal\push_server\Channels;
use Drupal\push_server\DatabaseSpool;
use Drupal\push_server\Event\GrantEvent;
use Drupal\push_server\EventSubscriber\AgentClusterSubscriber;
use Drupal\push_server\JobRunner;
use Drupal\push_server\Notification\View;
use Drupal\push_server\Outbox;
use Drupal\user\UserInterface;
use PHPUnit\Framework\TestCase;
use Psr\Log\NullLogger;
use PushServer\Channel;
use Symfony\Component\EventDispatcher\EventDispatcher;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpKernel\Event\ResponseEvent;
use Symfony\Component\HttpKernel\HttpKernelInterface;
use Symfony\Component\HttpKernel\KernelEvents;

/**
 * Stand-ins: rules of the module that need little of Drupal.
 */
final class PartsTest extends TestCase
{
    public function testWhichSecretCounts(): void
    {
        $keys = new class {
            public function getKey(string $id): self
            {
                return $this;
            }

            public function getKeyValue(): string
            {
                return " of-the-key-module\n";
            }
        };
        $config = ['token_key_id' => 'any', 'url' => 'http://config', 'api' => 'http://config'];
        $settings = static fn (array $given) => Parts::clients($given, $config, $keys)->settings();
        self::assertSame('of-the-key-module', $settings([])['token_key']);
        try {
            putenv('PUSH_TOKEN_KEY=of-the-environment');
            putenv('PUSH_URL=http://environment');
            self::assertSame('of-the-environment', $settings([])['token_key']);
            self::assertSame('of-settings-php', $settings(['token_key' => 'of-settings-php'])['token_key']);
            self::assertSame('http://environment', $settings(['url' => ''])['url']);
            self::assertSame('http://environment', Parts::clients()->settings(['url' => 'http://form'])['url']);
        } finally {
            putenv('PUSH_TOKEN_KEY');
            putenv('PUSH_URL');
        }
        self::assertSame('http://form', Parts::clients()->settings(['url' => 'http://form'])['url']);
        self::assertArrayNotHasKey('token_key', Parts::clients([], $config)->settings(), 'no Key module');
    }

    public function testATransactionDecides(): void
    {
        $database = new Connection();
        $runner = (new \ReflectionClass(JobRunner::class))->newInstanceWithoutConstructor();
        $outbox = new Outbox($database, $runner, Parts::clients(), new QueueFactory(), Parts::config(), new NullLogger());
        $jobs = new \ReflectionProperty(Outbox::class, 'jobs');
        $jobs->setAccessible(true);
        foreach ([[false, 0], [true, 1]] as [$success, $expected]) {
            $database->isOpen = true;
            $outbox->add('publish', ['channel' => 'a']);
            self::assertSame([], $jobs->getValue($outbox));
            $database->end($success);
            self::assertCount($expected, $jobs->getValue($outbox));
        }
        $outbox->add('publish', ['channel' => 'b']);
        self::assertCount(2, $jobs->getValue($outbox), 'without a transaction, at once');
        // Else the end of this process would send them.
        $jobs->setValue($outbox, []);
    }

    public function testChannelsOfPagesCannotBeGuessed(): void
    {
        $entity = static fn (string $type, int $id): EntityInterface => new class ($type, $id) implements EntityInterface {
            public function __construct(private string $type, private int $id)
            {
            }

            public function id()
            {
                return $this->id;
            }

            public function getEntityTypeId()
            {
                return $this->type;
            }
        };
        $channels = new Channels(new PrivateKey(), new EventDispatcher());
        $other = new Channels(new PrivateKey('other'), new EventDispatcher());
        $names = [
            $channels->ofPage(Channels::COMMENTS, $entity('node', 1), 'comment'),
            $channels->ofPage(Channels::COMMENTS, $entity('node', 1), 'reviews'),
            $channels->ofPage(Channels::COMMENTS, $entity('node', 11), 'comment'),
            $channels->ofPage(Channels::COMMENTS, $entity('media', 1), 'comment'),
            $channels->ofPage(Channels::EDITORS, $entity('node', 1)),
            $other->ofPage(Channels::COMMENTS, $entity('node', 1), 'comment'),
        ];
        self::assertCount(6, array_unique($names));
        foreach ($names as $name) {
            self::assertTrue(Channel::isName($name), $name);
            self::assertMatchesRegularExpression('/\A(comments|editors):.{43}\z/', $name);
        }
    }

    public function testModulesGrantChannels(): void
    {
        $account = new class implements AccountInterface {
            public function id()
            {
                return 7;
            }

            public function getRoles($exclude_locked_roles = false)
            {
                return ['authenticated', 'editor'];
            }

            public function isAnonymous()
            {
                return false;
            }

            public function hasPermission(string $permission)
            {
                return true;
            }
        };
        $dispatcher = new EventDispatcher();
        $dispatcher->addListener(GrantEvent::class, static function (GrantEvent $event): void {
            $event->subscribe('stock:*');
            $event->subscribe('stock:*');
            $event->publish('chat:*');
        });
        $channels = new Channels(new PrivateKey(), $dispatcher);
        self::assertSame(
            [['comments:*', 'editors:*', 'role:authenticated', 'role:editor', 'stock:*'], ['chat:*']],
            $channels->grants($account)->lists()
        );
        self::assertSame(['user:7', 'role:authenticated', 'role:editor'], $channels->ofAccount($account));
    }

    public function testWhatIsTakenFitsIntoTheMemory(): void
    {
        $database = new class extends Connection {
            public int $rows = 0;

            /**
             * @param list<mixed> $arguments
             */
            public function __call(string $name, array $arguments): mixed
            {
                $this->rows = $name === 'range' ? $arguments[1] : $this->rows;
                return $name === 'execute' ? [] : $this;
            }
        };
        $lock = new class implements LockBackendInterface {
        };
        (new DatabaseSpool($database, $lock))->take(1000, 262_144);
        // Each may be as large as a request, and the database hands over all of them at once.
        self::assertLessThan(64 << 20, $database->rows * 262_144);
    }

    public function testANotificationLeadsNowhereElse(): void
    {
        $view = (new \ReflectionClass(View::class))->newInstanceWithoutConstructor();
        $account = new class implements UserInterface {
        };
        $leads = static fn (string $url): string => $view->item((object) [
            'id' => 1, 'title' => '', 'body' => '', 'actor' => '', 'created' => 1, 'entity_type' => '', 'url' => $url,
        ], $account)['url'];
        self::assertSame('/', $leads('/'));
        self::assertSame('/shop/order?id=7#x\\y', $leads('/shop/order?id=7#x\\y'));
        // Browsers read a backslash as a slash, and pass over tabs and the ends of lines.
        $others = ['', '//evil.example', 'https://evil.example', '/\\evil.example', "/\t/evil.example", "/\n\\evil.example"];
        foreach ($others as $url) {
            self::assertSame('', $leads($url), json_encode($url));
        }
    }

    public function testOriginAgentCluster(): void
    {
        $header = static function (
            string $host,
            array $config = [],
            int $type = HttpKernelInterface::MAIN_REQUEST
        ): ?string {
            $factory = Parts::config($config);
            $bridge = new Bridge($factory, Parts::clients(['url' => 'https://push.example.com']), new AdminContext());
            $dispatcher = new EventDispatcher();
            $dispatcher->addSubscriber(new AgentClusterSubscriber($factory, $bridge));
            $kernel = new class implements HttpKernelInterface {
                public function handle(Request $request, int $type = self::MAIN_REQUEST, bool $catch = true): Response
                {
                    return new Response();
                }
            };
            $response = new class extends Response implements CacheableResponseInterface {
                public int $dependencies = 0;

                public function addCacheableDependency($dependency)
                {
                    $this->dependencies++;
                    return $this;
                }
            };
            $event = new ResponseEvent($kernel, Request::create("https://$host/"), $type, $response);
            $dispatcher->dispatch($event, KernelEvents::RESPONSE);
            self::assertSame($type === HttpKernelInterface::MAIN_REQUEST ? 1 : 0, $response->dependencies);
            return $response->headers->get('Origin-Agent-Cluster');
        };
        self::assertSame('?0', $header('www.example.com'));
        self::assertNull($header('www.example.com', [], HttpKernelInterface::SUB_REQUEST));
        self::assertNull($header('www.example.com', ['bridge' => Bridge::MESSAGES]));
        self::assertNull($header('www.example.com', ['agent_cluster' => false]));
        self::assertNull($header('www.example.org'));
    }

    public function testTheDomainThatHostsShare(): void
    {
        $expected = [
            ['www.example.com', 'push.example.com', 'example.com'],
            ['example.com', 'push.example.com', 'example.com'],
            ['a.b.example.com', 'push.b.example.com', 'b.example.com'],
            ['www.example.com', 'push.notexample.com', ''],
            ['localhost', 'localhost', ''],
            ['127.0.0.1', '127.0.0.1', ''],
            ['www.example.com', '', ''],
        ];
        foreach ($expected as [$one, $other, $domain]) {
            self::assertSame($domain, Bridge::shared($one, $other), "$one $other");
        }
    }
}
