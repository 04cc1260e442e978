<?php

declare(strict_types=1);

namespace PushServer\Tests\Drupal;

use PHPUnit\Framework\TestCase;
use Symfony\Component\Config\FileLocator;
use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\DependencyInjection\Loader\YamlFileLoader;

/**
 * Stand-ins: the container that push_server.services.yml makes.
 */
final class ServicesTest extends TestCase
{
    /** Services of Drupal that the module names, and the types by which it asks for others. */
    private const CORE = [
        'lock' => 'Drupal\Core\Lock\LockBackendInterface',
        'uuid' => 'Drupal\Component\Uuid\UuidInterface',
        'router.admin_context' => 'Drupal\Core\Routing\AdminContext',
        'cache.default' => 'Drupal\Core\Cache\CacheBackendInterface',
        'Drupal\Core\Config\ConfigFactoryInterface' => null,
        'Drupal\Core\Database\Connection' => null,
        'Drupal\Core\Site\Settings' => null,
        'Drupal\Core\Queue\QueueFactory' => null,
        'Drupal\Core\PrivateKey' => null,
        'Drupal\Core\Access\CsrfTokenGenerator' => null,
        'Drupal\Core\Session\AccountInterface' => null,
        'Drupal\Core\Entity\EntityTypeManagerInterface' => null,
        'Drupal\Core\StringTranslation\TranslationInterface' => null,
        'Drupal\Core\Datetime\DateFormatterInterface' => null,
        'Drupal\Component\Datetime\TimeInterface' => null,
        'Drupal\user\UserDataInterface' => null,
        'Psr\EventDispatcher\EventDispatcherInterface' => null,
        'Symfony\Component\HttpFoundation\RequestStack' => null,
    ];

    private function container(): ContainerBuilder
    {
        $container = new ContainerBuilder();
        $container->register('logger.channel_base', 'Psr\Log\NullLogger')->setAbstract(true);
        foreach (self::CORE as $id => $class) {
            $container->register($id, $class ?? $id)->setSynthetic(true)->setPublic(true);
        }
        (new YamlFileLoader($container, new FileLocator(MODULE)))->load('push_server.services.yml');
        foreach ($container->getDefinitions() as $definition) {
            // As Drupal has it.
            $definition->setPublic(true);
        }
        return $container;
    }

    public function testEveryArgumentIsFound(): void
    {
        $container = $this->container();
        $container->compile();
        $own = array_filter($container->getServiceIds(), static fn ($id) => str_contains($id, 'push_server'));
        self::assertGreaterThan(15, count($own));
        foreach ($own as $id) {
            $class = $container->findDefinition($id)->getClass();
            self::assertTrue(class_exists((string) $class), "$id: $class");
        }
    }

    public function testWhatDrupalFindsByTags(): void
    {
        $container = $this->container();
        self::assertSame(['Drupal\push_server\Outbox'], array_keys($container->findTaggedServiceIds('needs_destruction')));
        self::assertTrue(is_subclass_of('Drupal\push_server\Outbox', 'Drupal\Core\DestructableInterface'));
        foreach (array_keys($container->findTaggedServiceIds('event_subscriber')) as $id) {
            self::assertTrue(is_subclass_of($id, 'Symfony\Component\EventDispatcher\EventSubscriberInterface'));
        }
    }

    public function testEveryClassWithHooksIsAService(): void
    {
        $container = $this->container();
        foreach (glob(MODULE . '/src/Hook/*.php') as $path) {
            self::assertTrue($container->hasDefinition('Drupal\push_server\Hook\\' . basename($path, '.php')), $path);
        }
    }
}
