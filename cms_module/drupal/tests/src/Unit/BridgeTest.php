<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Unit;

use Drupal\push_server\Bridge;
use Drupal\Tests\UnitTestCase;
use PHPUnit\Framework\Attributes\Group;

/**
 * The domain that two hosts share.
 *
 * @group push_server
 */
#[Group('push_server')]
final class BridgeTest extends UnitTestCase {

  /**
   * At least two labels, whole labels, and never an address.
   */
  public function testShared(): void {
    $expected = [
      ['www.example.com', 'push.example.com', 'example.com'],
      ['example.com', 'push.example.com', 'example.com'],
      ['a.b.example.com', 'push.b.example.com', 'b.example.com'],
      ['www.Example.com', 'push.example.com', 'example.com'],
      ['www.example.com', 'push.notexample.com', ''],
      ['www.example.com', 'push.example.org', ''],
      ['localhost', 'localhost', ''],
      ['127.0.0.1', '127.0.0.1', ''],
      ['[::1]', '[::1]', ''],
      ['www.example.com', '', ''],
    ];
    foreach ($expected as [$one, $other, $domain]) {
      self::assertSame($domain, Bridge::shared($one, $other), "$one $other");
    }
  }

}
