<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Kernel;

use Drupal\push_server\Notification\Store;
use Drupal\user\Entity\Role;
use PHPUnit\Framework\Attributes\Group;
use PHPUnit\Framework\Attributes\RunTestsInSeparateProcesses;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Session\Session;
use Symfony\Component\HttpFoundation\Session\Storage\MockArraySessionStorage;

/**
 * What ends connections.
 *
 * @group push_server
 */
#[Group('push_server')]
#[RunTestsInSeparateProcesses]
final class SessionTest extends PushKernelTestBase {

  /**
   * A new password, a block, other roles and a deletion end all sessions.
   */
  public function testWhatEndsAllSessions(): void {
    Role::create(['id' => 'editor', 'label' => 'Editor'])->save();
    $changes = [
      'password' => fn () => $this->bob->setPassword('another')->save(),
      'more roles' => fn () => $this->bob->addRole('editor')->save(),
      'fewer roles' => fn () => $this->bob->removeRole('editor')->save(),
      'block' => fn () => $this->bob->block()->save(),
      'deletion' => fn () => $this->bob->delete(),
    ];
    foreach ($changes as $what => $change) {
      $before = time();
      $change();
      $commands = $this->sent();
      self::assertSame(['revoke'], array_column($commands, 'method'), $what);
      self::assertSame((string) $this->bob->id(), $commands[0]['params']['user'], $what);
      self::assertGreaterThanOrEqual($before, $commands[0]['params']['before'], $what);
    }
  }

  /**
   * Other changes of an account end nothing.
   */
  public function testWhatEndsNothing(): void {
    $this->bob->setEmail('bob@example.org')->save();
    $this->bob->block();
    $this->bob->activate()->save();
    self::assertSame([], $this->sent());
  }

  /**
   * A logout ends the session whose token was issued, and no other.
   */
  public function testLogoutEndsOneSession(): void {
    $request = Request::create('/');
    $session = new Session(new MockArraySessionStorage());
    $session->setId('a-session');
    $request->setSession($session);
    $this->container->get('request_stack')->push($request);
    $token = $this->container->get('Drupal\push_server\Tokens')->issue($request, $this->bob);
    $payload = explode('.', (string) $token)[0];
    $claims = json_decode(base64_decode(strtr($payload, '-_', '+/')), TRUE);
    self::assertSame((string) $this->bob->id(), $claims['sub']);
    self::assertContains('role:authenticated', $claims['sub_ch']);
    self::assertStringNotContainsString('a-session', json_encode($claims));
    $this->sent();
    $this->container->get('module_handler')->invokeAll('user_logout', [$this->bob]);
    $commands = $this->sent();
    self::assertSame([['method' => 'revoke', 'params' => ['sid' => $claims['sid']]]], $commands);
  }

  /**
   * Without a session, a permission or a login there is no token.
   */
  public function testWhoGetsNoToken(): void {
    $tokens = $this->container->get('Drupal\push_server\Tokens');
    $request = Request::create('/');
    self::assertNull($tokens->issue($request, $this->bob), 'no session');
    $session = new Session(new MockArraySessionStorage());
    $session->setId('a-session');
    $request->setSession($session);
    self::assertNotNull($tokens->issue($request, $this->bob));
    self::assertNull($tokens->issue($request, $this->createUser([], 'dave')), 'no permission');
    $anonymous = $this->container->get('entity_type.manager')->getStorage('user')->load(0)
      ?? $this->container->get('current_user');
    self::assertNull($tokens->issue($request, $anonymous), 'nobody');
  }

  /**
   * Nothing is kept of a user who is deleted.
   */
  public function testDeletedUserIsForgotten(): void {
    $this->comment($this->article(), $this->bob);
    $this->sent();
    $store = $this->container->get(Store::class);
    self::assertCount(1, $store->ofAccount($this->alice));
    $this->alice->delete();
    self::assertSame(0, (int) $this->container->get('database')->select('push_server_notification')
      ->countQuery()->execute()->fetchField());
  }

}
