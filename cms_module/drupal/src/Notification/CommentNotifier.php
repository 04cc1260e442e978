<?php

declare(strict_types=1);

namespace Drupal\push_server\Notification;

use Drupal\comment\CommentInterface;
use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Entity\EntityInterface;
use Drupal\Core\Entity\EntityTypeManagerInterface;
use Drupal\push_server\Channels;
use Drupal\push_server\ClientFactory;
use Drupal\user\EntityOwnerInterface;

/**
 * Tells the author of the content and of the comment before, and open pages.
 */
final class CommentNotifier {

  public function __construct(
    private readonly Notifier $notifier,
    private readonly Channels $channels,
    private readonly ClientFactory $clients,
    private readonly EntityTypeManagerInterface $entityTypeManager,
    private readonly ConfigFactoryInterface $configFactory,
  ) {}

  /**
   * A comment has appeared, was changed, or has gone.
   *
   * @param string $what
   *   One of "new", "changed" and "gone".
   * @param string $id
   *   Id of the comment.
   * @param string $entityType
   *   Type of what it comments on.
   * @param string $entityId
   *   Id of what it comments on.
   * @param string $field
   *   The comment field there.
   */
  public function handle(string $what, string $id, string $entityType, string $entityId, string $field): void {
    $config = $this->configFactory->get('push_server.settings');
    $entity = $this->entityTypeManager->getStorage($entityType)->load($entityId);
    if ($entity === NULL) {
      return;
    }
    if ($config->get('live_comments')) {
      $channel = $this->channels->ofPage(Channels::COMMENTS, $entity, $field);
      $this->clients->client()->publish($channel, ['type' => $what, 'comment' => $id]);
    }
    $comment = $this->entityTypeManager->getStorage('comment')->load($id);
    if ($what !== 'new' || !$comment instanceof CommentInterface || !$comment->isPublished()) {
      return;
    }
    foreach (self::recipients($comment, $entity) as $type => $uid) {
      if ($config->get("notify.$type")) {
        $this->notifier->notify([$uid], $type, entityType: 'comment', entityId: $id);
      }
    }
  }

  /**
   * Who is told of a comment, and as what; nobody is told twice.
   *
   * @return array<string, int>
   *   User ids by type of notification.
   */
  private static function recipients(CommentInterface $comment, EntityInterface $entity): array {
    $author = (int) $comment->getOwnerId();
    $recipients = [];
    if ($comment->hasParentComment()) {
      $recipients['reply'] = (int) $comment->getParentComment()?->getOwnerId();
    }
    if ($entity instanceof EntityOwnerInterface) {
      $recipients['comment'] = (int) $entity->getOwnerId();
    }
    $recipients = array_filter($recipients, static fn (int $uid): bool => $uid !== 0 && $uid !== $author);
    return array_unique($recipients);
  }

}
