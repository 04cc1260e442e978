<?php

declare(strict_types=1);

namespace Drupal\push_server\Notification;

use Drupal\Component\Utility\Unicode;
use Drupal\Core\Entity\EntityTypeManagerInterface;
use Drupal\push_server\Channels;
use Drupal\push_server\ClientFactory;
use Drupal\push_server\Event\NotificationEvent;
use Drupal\push_server\Tokens;
use Drupal\user\UserInterface;
use Psr\EventDispatcher\EventDispatcherInterface;

/**
 * Stores notifications, and tells the pages of those whom they are for.
 *
 * Runs after the response, or in a queue worker.
 */
final class Notifier {

  private const TITLE_LENGTH = 255;
  private const TEXT_LENGTH = 1000;
  private const NAME_LENGTH = 255;

  public function __construct(
    private readonly Store $store,
    private readonly View $view,
    private readonly Channels $channels,
    private readonly ClientFactory $clients,
    private readonly EntityTypeManagerInterface $entityTypeManager,
    private readonly EventDispatcherInterface $dispatcher,
  ) {}

  /**
   * Notify users, as far as they may view what it is about.
   *
   * @param array<int|string> $uids
   *   Who is notified.
   * @param string $type
   *   What kind of notification it is.
   * @param string $title
   *   Plain text.
   * @param string $text
   *   Plain text.
   * @param string $url
   *   A path of this site.
   * @param string $sender
   *   The name of whom it comes from.
   * @param string $entityType
   *   Type of what it is about, or "".
   * @param string $entityId
   *   Id of what it is about.
   */
  public function notify(
    array $uids,
    string $type,
    string $title = '',
    string $text = '',
    string $url = '',
    string $sender = '',
    string $entityType = '',
    string $entityId = '',
  ): void {
    $entity = $entityType === '' ? NULL : $this->entityTypeManager->getStorage($entityType)->load($entityId);
    if ($entityType !== '' && $entity === NULL) {
      return;
    }
    $uids = array_map('intval', $uids);
    $event = new NotificationEvent($type, $uids, '', $title, $text, $url, $sender, $entity);
    $this->dispatcher->dispatch($event);
    $users = $this->entityTypeManager->getStorage('user')->loadMultiple(array_unique($event->uids));
    foreach ($users as $user) {
      if (!self::mayReceive($user) || ($entity && !$this->view->mayView($entity, $user))) {
        continue;
      }
      $row = $this->store->add(['uid' => (int) $user->id()] + $this->columns($event));
      $item = $this->view->item($row, $user);
      if ($item) {
        $this->publish($this->channels->ofUser($user->id()), $item);
      }
    }
  }

  /**
   * Notify everybody who has a role.
   *
   * It is stored once and published once, however many they are.
   */
  public function announce(string $role, string $title, string $text = '', string $url = '', string $sender = ''): void {
    $event = new NotificationEvent('announcement', [], $role, $title, $text, $url, $sender, NULL);
    $this->dispatcher->dispatch($event);
    if ($event->role === '') {
      return;
    }
    $row = $this->store->add(['role' => $event->role] + $this->columns($event));
    $this->publish($this->channels->ofRole($event->role), $this->view->plainItem($row));
  }

  /**
   * Tell all pages of a user what was looked at.
   */
  public function seen(UserInterface $account, int $id): void {
    $this->clients->client()->publish($this->channels->ofUser($account->id()), ['type' => 'seen', 'seen' => $id]);
  }

  /**
   * Whether a user is notified of anything at all.
   */
  private static function mayReceive(UserInterface $user): bool {
    return $user->isActive() && !$user->isAnonymous() && $user->hasPermission(Tokens::PERMISSION);
  }

  /**
   * The columns of a row that an event decides.
   *
   * @return array<string, string>
   *   Values by column.
   */
  private function columns(NotificationEvent $event): array {
    return [
      'type' => $event->type,
      'title' => self::fit($event->title, self::TITLE_LENGTH),
      'body' => self::fit($event->text, self::TEXT_LENGTH),
      'url' => mb_scrub($event->url),
      'actor' => self::fit($event->sender, self::NAME_LENGTH),
      'entity_type' => (string) $event->entity?->getEntityTypeId(),
      'entity_id' => (string) $event->entity?->id(),
    ];
  }

  /**
   * A text that fits into the table and is UTF-8, whatever a module hands over.
   */
  private static function fit(string $text, int $length): string {
    return Unicode::truncate(mb_scrub($text), $length, FALSE, TRUE);
  }

  /**
   * Publish an item under an id of its own, so that it arrives once.
   *
   * @param string $channel
   *   Where to.
   * @param array<string, string|int> $item
   *   The item.
   */
  private function publish(string $channel, array $item): void {
    $this->clients->client()->publish($channel, ['type' => 'notification'] + $item, "drupal-{$item['id']}-{$item['at']}");
  }

}
