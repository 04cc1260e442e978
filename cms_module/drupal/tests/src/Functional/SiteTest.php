<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Functional;

use Drupal\Core\Url;
use Drupal\Tests\Traits\Core\CronRunTrait;
use PHPUnit\Framework\Attributes\Group;
use PHPUnit\Framework\Attributes\RunTestsInSeparateProcesses;

/**
 * The pages of this module, as an owner and a user see them.
 *
 * @group push_server
 */
#[Group('push_server')]
#[RunTestsInSeparateProcesses]
final class SiteTest extends PushBrowserTestBase {

  use CronRunTrait;

  private const ADMIN = [
    ...self::USUAL,
    'administer push server',
    'administer site configuration',
    'administer modules',
    'send push announcements',
    'access administration pages',
  ];

  /**
   * The settings form names what is wrong, and where the way ends.
   */
  public function testSettings(): void {
    $this->useSettings(['api' => '', 'url' => '']);
    $this->drupalGet('admin/config/services/push-server');
    $this->assertSession()->statusCodeEquals(403);
    $this->drupalLogin($this->drupalCreateUser(self::ADMIN));
    $this->drupalGet('admin/config/services/push-server');
    $this->assertSession()->responseNotContains('tttttttt');
    $this->assertSession()->pageTextContains('Is in settings.php or in the environment.');
    $this->submitForm(['url' => 'push.example.com', 'api' => 'ftp://127.0.0.1'], 'Save configuration');
    $this->assertSession()->pageTextContains("begins with http:// or https://");
    $this->assertSession()->pageTextContains('begins with http://, https:// or unix:/');
    $this->submitForm(['url' => 'http://push.example.com/a path', 'api' => 'http://127.0.0.1:9'], 'Save configuration');
    $this->assertSession()->statusMessageExists('error');
    $values = ['url' => 'http://127.0.0.1:9', 'api' => 'http://127.0.0.1:9'];
    $this->submitForm($values, 'Test connection');
    $this->assertSession()->pageTextContains('The push server cannot be reached');
    self::assertSame('http://127.0.0.1:6667', $this->config('push_server.settings')->get('api'), 'nothing is saved');
    $this->submitForm($values, 'Save configuration');
    $this->assertSession()->statusMessageContains('The configuration options have been saved.');
    self::assertSame('http://127.0.0.1:9', $this->config('push_server.settings')->get('api'));
  }

  /**
   * The status report names the hop that fails and its remedy.
   */
  public function testStatusReport(): void {
    $this->drupalLogin($this->drupalCreateUser(self::ADMIN));
    $this->drupalGet('admin/reports/status');
    $this->assertSession()->pageTextContains('The push server cannot be reached');
    $this->useSettings(['api_key' => 'whsec_short']);
    drupal_flush_all_caches();
    $this->drupalGet('admin/reports/status');
    $this->assertSession()->pageTextContains("'api_key'");
    // The site goes on all the same.
    $this->drupalGet('node/1');
    $this->assertSession()->statusCodeEquals(200);
    self::assertNull($this->pageSettings()['token']);
  }

  /**
   * An announcement appears in the list of a user, as text.
   */
  public function testAnnouncement(): void {
    $user = $this->drupalCreateUser(self::USUAL);
    $this->drupalLogin($this->drupalCreateUser(self::ADMIN));
    $this->drupalGet('admin/content/announce');
    $form = ['role' => 'authenticated', 'title' => 'Fish & <b>chips</b>', 'text' => 'Now', 'path' => '//evil.example'];
    $this->submitForm($form, 'Send');
    $this->assertSession()->pageTextContains('stays on this site');
    $this->submitForm(['path' => '/node/1'] + $form, 'Send');
    $this->assertSession()->pageTextContains('The announcement is on its way.');
    $this->drupalLogin($user);
    $this->drupalGet('user/notifications');
    $this->assertSession()->linkExists('Fish & <b>chips</b>');
    $list = json_decode($this->drupalGet('push-server/notifications'), TRUE);
    self::assertSame(['Fish & <b>chips</b>', '/node/1', 0], [
      $list['items'][0]['title'],
      $list['items'][0]['url'],
      $list['seen'],
    ]);
    $this->assertSession()->responseHeaderContains('Cache-Control', 'no-store');
  }

  /**
   * Only pages of this site can say that a user has looked.
   */
  public function testSeen(): void {
    $this->container->get('push_server')->announce('authenticated', 'Hello');
    $this->container->get('Drupal\push_server\Outbox')->destruct();
    $this->drupalLogin($this->drupalCreateUser(self::USUAL));
    $this->container->get('database')->update('push_server_notification')->fields(['created' => time() + 10])->execute();
    $this->drupalGet('node/1');
    $good = $this->pageSettings()['seenUrl'];
    $client = $this->getHttpClient();
    $post = fn (string $url, array $form): int => $client->post($url, [
      'form_params' => $form,
      'cookies' => $this->getSessionCookies(),
      'http_errors' => FALSE,
    ])->getStatusCode();
    $bare = Url::fromRoute('push_server.seen', [], ['absolute' => TRUE])->toString();
    $good = $this->baseUrl . substr($good, strlen((string) parse_url($this->baseUrl, PHP_URL_PATH)));
    self::assertSame(403, $post(strtok($bare, '?'), ['seen' => 1]), 'no token against forgery');
    self::assertSame(400, $post($good, ['seen' => 'x']));
    self::assertSame(204, $post($good, ['seen' => 1]));
    self::assertSame(1, json_decode($this->drupalGet('push-server/notifications'), TRUE)['seen']);
  }

  /**
   * It can be taken out again, and cron runs while it is in.
   */
  public function testUninstall(): void {
    $this->cronRun();
    $this->drupalLogin($this->drupalCreateUser(self::ADMIN));
    $this->drupalGet('admin/help');
    $this->container->get('module_installer')->uninstall(['push_server']);
    self::assertFalse($this->container->get('database')->schema()->tableExists('push_server_spool'));
    $this->drupalGet('node/1');
    $this->assertSession()->statusCodeEquals(200);
    $this->container->get('module_installer')->install(['push_server']);
    self::assertTrue($this->container->get('database')->schema()->tableExists('push_server_notification'));
  }

}
