<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Kernel;

use Drupal\KernelTests\KernelTestBase;
use Drupal\push_server\ClientFactory;
use PHPUnit\Framework\Attributes\Group;
use PHPUnit\Framework\Attributes\RunTestsInSeparateProcesses;
use PushServer\Command;

/**
 * The table in which commands wait.
 *
 * @group push_server
 */
#[Group('push_server')]
#[RunTestsInSeparateProcesses]
final class SpoolTest extends KernelTestBase {

  /**
   * {@inheritdoc}
   */
  protected static $modules = ['system', 'user', 'push_server'];

  /**
   * {@inheritdoc}
   */
  protected function setUp(): void {
    parent::setUp();
    $this->installSchema('push_server', ['push_server_spool']);
    $this->installConfig(['push_server']);
  }

  /**
   * Revocations come first, and the rest in the order in which it was made.
   */
  public function testTheOrder(): void {
    $spool = $this->container->get(ClientFactory::class)->spool();
    self::assertTrue($spool->isEmpty());
    $spool->put([new Command('"late"', FALSE, 1795000000.000003), new Command('"revoke"', TRUE, 1795000001.0)]);
    $spool->put([new Command('"early"', FALSE, 1795000000.000002), new Command('"mid"', FALSE, 1795000000.0000025)]);
    self::assertFalse($spool->isEmpty());
    $taken = $spool->take(10, 1000);
    $json = array_map(static fn (array $entry): string => $entry[0]->json, array_values($taken));
    self::assertSame('"revoke"', $json[0]);
    self::assertSame('"early"', $json[1]);
    self::assertTrue($taken[array_key_first($taken)][0]->isRevocation);
    self::assertCount(4, $json);
    $spool->remove(array_map('strval', array_keys($taken)));
    self::assertTrue($spool->isEmpty());
  }

  /**
   * What is taken fits into a request, but is one at least.
   */
  public function testWhatIsTakenFits(): void {
    $spool = $this->container->get(ClientFactory::class)->spool();
    foreach (range(1, 5) as $n) {
      $spool->put([new Command('"' . str_repeat('x', 98) . '"', FALSE, (float) $n)]);
    }
    self::assertCount(2, $spool->take(2, 1000));
    self::assertCount(3, $spool->take(10, 303));
    self::assertCount(1, $spool->take(10, 1));
  }

  /**
   * Publications expire, and revocations never do.
   */
  public function testExpiry(): void {
    $spool = $this->container->get(ClientFactory::class)->spool();
    $spool->put([new Command('1', FALSE, 10.0), new Command('2', TRUE, 10.0), new Command('3', FALSE, 30.0)]);
    self::assertSame([3, 10], $spool->backlog());
    self::assertSame(1, $spool->expire(20.0));
    self::assertSame(['2', '3'], array_map(
      static fn (array $entry): string => $entry[0]->json,
      array_values($spool->take(10, 1000)),
    ));
    self::assertSame([2, 10], $spool->backlog());
  }

}
