<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Functional;

use PHPUnit\Framework\Attributes\Group;
use PHPUnit\Framework\Attributes\RunTestsInSeparateProcesses;

/**
 * Tokens and caches: none is ever kept, and pages stay cacheable.
 *
 * @group push_server
 */
#[Group('push_server')]
#[RunTestsInSeparateProcesses]
final class CacheTest extends PushBrowserTestBase {

  /**
   * Two users behind one entry of the dynamic page cache get two tokens.
   */
  public function testTwoUsersBehindOneEntry(): void {
    $tokens = [];
    foreach (['alice' => 'MISS', 'bob' => 'HIT'] as $name => $expected) {
      $user = $this->drupalCreateUser(self::USUAL, $name);
      $this->drupalLogin($user);
      $this->drupalGet('node/1');
      $this->assertSession()->responseHeaderEquals('X-Drupal-Dynamic-Cache', $expected);
      $this->assertSession()->responseHeaderContains('Cache-Control', 'private');
      $settings = $this->pageSettings();
      self::assertSame((string) $user->id(), self::claims($settings['token'])['sub']);
      self::assertSame('user:' . $user->id(), $settings['channels'][0]);
      $tokens[] = $settings['token'];
      $this->assertSession()->elementExists('css', '[data-push-server-bell]');
      $this->drupalLogout();
    }
    self::assertCount(2, array_unique($tokens));
  }

  /**
   * Anonymous pages have no token, no bell, and come from the page cache.
   */
  public function testAnonymousPages(): void {
    $this->drupalGet('node/1');
    $this->drupalGet('node/1');
    $this->assertSession()->responseHeaderEquals('X-Drupal-Cache', 'HIT');
    $this->assertSession()->responseNotContains('pushServer');
    $this->assertSession()->elementNotExists('css', '[data-push-server-bell]');
    $this->drupalGet('push-server/token');
    $this->assertSession()->statusCodeEquals(403);
    $this->drupalGet('push-server/notifications');
    $this->assertSession()->statusCodeEquals(403);
    $this->drupalGet('user/notifications');
    $this->assertSession()->statusCodeEquals(403);
  }

  /**
   * The renewal is never cached, belongs to the session, and ends with it.
   */
  public function testRenewal(): void {
    $user = $this->drupalCreateUser(self::USUAL);
    $this->drupalLogin($user);
    $this->drupalGet('node/1');
    $first = self::claims($this->pageSettings()['token']);
    $renewed = self::claims($this->drupalGet('push-server/token'));
    $this->assertSession()->statusCodeEquals(200);
    $this->assertSession()->responseHeaderContains('Cache-Control', 'no-store');
    $this->assertSession()->responseHeaderContains('Content-Type', 'text/plain');
    self::assertSame($first['sid'], $renewed['sid']);
    self::assertSame(3600, $renewed['exp'] - $renewed['iat']);
    $this->drupalGet('push-server/token', ['query' => ['user' => $user->id()]]);
    $this->assertSession()->statusCodeEquals(200);
    $this->drupalGet('push-server/token', ['query' => ['user' => $user->id() + 1]]);
    $this->assertSession()->statusCodeEquals(403);
    $this->drupalLogout();
    $this->drupalGet('push-server/token');
    $this->assertSession()->statusCodeEquals(403);
    $this->drupalLogin($this->drupalCreateUser(['access content']));
    $this->drupalGet('node/1');
    $this->assertSession()->responseNotContains('pushServer');
    $this->drupalGet('push-server/token');
    $this->assertSession()->statusCodeEquals(403);
  }

  /**
   * Where whole pages are kept for users, tokens come by the route only.
   */
  public function testNoTokenInThePage(): void {
    $this->config('push_server.settings')->set('token_in_page', FALSE)->save();
    $this->drupalLogin($this->drupalCreateUser(self::USUAL));
    $this->drupalGet('node/1');
    self::assertNull($this->pageSettings()['token']);
    self::assertNotEmpty(self::claims($this->drupalGet('push-server/token'))['sub']);
  }

  /**
   * The header for document.domain is on every kind of answer, if wanted.
   */
  public function testOriginAgentCluster(): void {
    $header = 'Origin-Agent-Cluster';
    // Nothing in common with push.example.com.
    $this->drupalGet('node/1');
    $this->assertSession()->responseHeaderDoesNotExist($header);
    $host = (string) parse_url($this->baseUrl, PHP_URL_HOST);
    if (filter_var($host, FILTER_VALIDATE_IP) || !str_contains($host, '.')) {
      self::markTestSkipped('SIMPLETEST_BASE_URL has no host with a domain.');
    }
    $this->useSettings(['url' => "http://push.$host"]);
    drupal_flush_all_caches();
    foreach (['node/1', 'node/1', 'nowhere', 'admin', 'push-server/token'] as $path) {
      $this->drupalGet($path);
      $this->assertSession()->responseHeaderEquals($header, '?0');
    }
    $this->config('push_server.settings')->set('agent_cluster', FALSE)->save();
    $this->drupalGet('node/1');
    $this->assertSession()->responseHeaderDoesNotExist($header);
  }

}
