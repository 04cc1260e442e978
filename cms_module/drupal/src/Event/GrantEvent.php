<?php

declare(strict_types=1);

namespace Drupal\push_server\Event;

use Drupal\Component\EventDispatcher\Event;
use Drupal\Core\Session\AccountInterface;

/**
 * Asks what a user may listen to, and publish to, before a token is issued.
 *
 * The pages of a user share one connection, so this is about the user and not
 * about the page. Grant prefixes such as "forum:*" instead of many channels.
 */
final class GrantEvent extends Event {

  /**
   * Channels to listen to.
   *
   * @var array<string, string>
   */
  private array $subscribe = [];

  /**
   * Channels to publish to from the browser.
   *
   * @var array<string, string>
   */
  private array $publish = [];

  public function __construct(public readonly AccountInterface $account) {}

  /**
   * Let the user listen to a channel, or to all that begin with a prefix.
   */
  public function subscribe(string $channelOrPrefix): void {
    $this->subscribe[$channelOrPrefix] = $channelOrPrefix;
  }

  /**
   * Let the user publish to a channel from the browser.
   */
  public function publish(string $channelOrPrefix): void {
    $this->publish[$channelOrPrefix] = $channelOrPrefix;
  }

  /**
   * What the token will list.
   *
   * @return array{list<string>, list<string>}
   *   Channels to listen to, and channels to publish to.
   */
  public function lists(): array {
    return [array_values($this->subscribe), array_values($this->publish)];
  }

}
