<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Component\Uuid\UuidInterface;
use Drupal\Core\Entity\EntityInterface;

/**
 * What other modules use: the service "push_server".
 *
 * @code
 * $push = \Drupal::service('push_server');
 * $push->notify([$uid], 'Your order is on its way', url: '/order/7');
 * $push->publish('prices', ['changed' => 7]);
 * @endcode
 *
 * Nothing is sent before the response, nothing is sent of a transaction that is
 * rolled back, and nothing is ever thrown.
 */
final class Push {

  public function __construct(
    private readonly Outbox $outbox,
    private readonly UuidInterface $uuid,
  ) {}

  /**
   * Publish to a channel.
   *
   * @param string $channel
   *   Its name. Who may listen to it is decided in a GrantEvent.
   * @param mixed $data
   *   Anything that is JSON. Everybody who listens can read it, so let pages
   *   ask the site for what not everybody may see.
   */
  public function publish(string $channel, mixed $data): void {
    $this->outbox->add('publish', ['channel' => $channel, 'data' => $data, 'id' => $this->uuid->generate()]);
  }

  /**
   * Notify users: in the bell of each, now or when they come back.
   *
   * @param array<int|string> $uids
   *   The users.
   * @param string $title
   *   Plain text.
   * @param string $text
   *   Plain text, or nothing.
   * @param string $url
   *   A path inside the site, beginning with a slash.
   * @param string $type
   *   What kind of notification this is, for NotificationEvent.
   * @param \Drupal\Core\Entity\EntityInterface|null $entity
   *   What it is about. Who may not view it is not notified; who may not view
   *   it any more does not see the notification any more.
   */
  public function notify(
    array $uids,
    string $title,
    string $text = '',
    string $url = '',
    string $type = 'custom',
    ?EntityInterface $entity = NULL,
  ): void {
    $this->outbox->add('notify', [
      'uids' => array_map('intval', array_values($uids)),
      'type' => $type,
      'title' => $title,
      'text' => $text,
      'url' => $url,
      'entityType' => $entity?->getEntityTypeId() ?? '',
      'entityId' => (string) $entity?->id(),
    ]);
  }

  /**
   * Notify everybody who has a role.
   */
  public function announce(string $role, string $title, string $text = '', string $url = ''): void {
    $this->outbox->add('announce', ['role' => $role, 'title' => $title, 'text' => $text, 'url' => $url]);
  }

  /**
   * End all connections of a user, for instance one who may see less now.
   *
   * Pages that are open get a new token by themselves, if the site gives one.
   */
  public function disconnect(int|string $uid): void {
    $this->outbox->revoke(user: (string) $uid);
  }

}
