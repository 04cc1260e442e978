<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Functional;

use Drupal\Component\Serialization\Json;
use Drupal\Tests\BrowserTestBase;

/**
 * A site whose push server is away. It has secrets in its settings.php.
 */
abstract class PushBrowserTestBase extends BrowserTestBase {

  /**
   * {@inheritdoc}
   */
  protected static $modules = ['node', 'comment', 'block', 'page_cache', 'dynamic_page_cache', 'push_server'];

  /**
   * {@inheritdoc}
   */
  protected $defaultTheme = 'stark';

  /**
   * What every user of these tests may do.
   */
  protected const USUAL = ['access content', 'access comments', 'receive push notifications'];

  /**
   * {@inheritdoc}
   */
  protected function setUp(): void {
    parent::setUp();
    $this->useSettings([
      'url' => 'http://push.example.com',
      // Port 9 is refused at once.
      'api' => 'http://127.0.0.1:9',
      'token_key' => str_repeat('t', 32),
      'api_key' => 'whsec_' . base64_encode(str_repeat('a', 32)),
    ]);
    user_role_revoke_permissions('authenticated', ['receive push notifications']);
    $this->drupalPlaceBlock('push_server_notifications');
    $this->drupalCreateContentType(['type' => 'page']);
    $this->drupalCreateNode(['type' => 'page', 'title' => 'A page']);
  }

  /**
   * Write settings of this module into settings.php.
   *
   * @param array<string, string> $values
   *   The settings.
   */
  protected function useSettings(array $values): void {
    $settings = [];
    foreach ($values as $name => $value) {
      $settings['settings']['push_server'][$name] = (object) ['value' => $value, 'required' => TRUE];
    }
    $this->writeSettings($settings);
  }

  /**
   * What the page tells the scripts of this module.
   *
   * @return array<string, mixed>
   *   Part of drupalSettings.
   */
  protected function pageSettings(): array {
    return $this->getDrupalSettings()['pushServer'] ?? [];
  }

  /**
   * What a token says.
   *
   * @return array<string, mixed>
   *   Its claims.
   */
  protected static function claims(string $token): array {
    $payload = explode('.', $token)[0];
    return (array) Json::decode((string) base64_decode(strtr($payload, '-_', '+/')));
  }

}
