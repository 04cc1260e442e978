<?php

declare(strict_types=1);

namespace Drupal\push_server\Event;

use Drupal\Component\EventDispatcher\Event;
use Drupal\Core\Entity\EntityInterface;

/**
 * A notification on its way, before it is stored: change it, or drop it.
 *
 * Nobody is notified of what may not be viewed, even if named in $uids.
 */
final class NotificationEvent extends Event {

  /**
   * Makes an event of a notification.
   *
   * @param string $type
   *   One of comment, reply, contact, private_message, announcement, custom, or
   *   what the caller of Push::notify() gave.
   * @param int[] $uids
   *   Who is notified. Empty this to drop it; not used for announcements.
   * @param string $role
   *   To whose role it is announced, or "". Empty this to drop an announcement.
   * @param string $title
   *   Plain text. Of comments it is made for each reader, and this is empty.
   * @param string $text
   *   Plain text.
   * @param string $url
   *   A path of this site.
   * @param string $sender
   *   The name of whom it comes from.
   * @param \Drupal\Core\Entity\EntityInterface|null $entity
   *   What it is about.
   */
  public function __construct(
    public readonly string $type,
    public array $uids,
    public string $role,
    public string $title,
    public string $text,
    public string $url,
    public string $sender,
    public readonly ?EntityInterface $entity,
  ) {}

}
