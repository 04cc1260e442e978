<?php

declare(strict_types=1);

namespace Drupal\push_server\Hook;

use Drupal\Component\Utility\DeprecationHelper;
use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Entity\EntityInterface;
use Drupal\Core\Hook\Attribute\Hook;
use Drupal\Core\Installer\InstallerKernel;
use Drupal\Core\Session\AccountInterface;
use Drupal\comment\CommentInterface;
use Drupal\contact\MessageInterface;
use Drupal\node\NodeInterface;
use Drupal\push_server\Channels;
use Drupal\push_server\Outbox;
use Drupal\push_server\Push;

/**
 * Notices what somebody should be told.
 *
 * Nothing is decided here but whether it is news at all; who is told is found
 * out after the response.
 */
final class ContentHooks {

  public function __construct(
    private readonly Outbox $outbox,
    private readonly Push $push,
    private readonly Channels $channels,
    private readonly ConfigFactoryInterface $configFactory,
    private readonly AccountInterface $currentUser,
  ) {}

  /**
   * A comment that waits for approval is no news.
   */
  #[Hook('comment_insert')]
  public function commentInsert(CommentInterface $comment): void {
    if ($comment->isPublished()) {
      $this->comment('new', $comment);
    }
  }

  /**
   * The approval of a comment is what publishes it.
   */
  #[Hook('comment_update')]
  public function commentUpdate(CommentInterface $comment): void {
    $before = DeprecationHelper::backwardsCompatibleCall(
      \Drupal::VERSION,
      '11.2',
      static fn () => $comment->getOriginal(),
      static fn () => $comment->original,
    );
    $wasPublished = $before instanceof CommentInterface && $before->isPublished();
    if ($wasPublished || $comment->isPublished()) {
      $this->comment(match (TRUE) {
        !$wasPublished => 'new',
        $comment->isPublished() => 'changed',
        default => 'gone',
      }, $comment);
    }
  }

  /**
   * Open pages lose what is deleted.
   */
  #[Hook('comment_delete')]
  public function commentDelete(CommentInterface $comment): void {
    if ($comment->isPublished()) {
      $this->comment('gone', $comment);
    }
  }

  /**
   * Who has the form open is told that his copy is old.
   */
  #[Hook('node_update')]
  public function nodeUpdate(NodeInterface $node): void {
    if ($this->isNews($node) && $this->configFactory->get('push_server.settings')->get('editors')) {
      $this->push->publish($this->channels->ofPage(Channels::EDITORS, $node), [
        'type' => 'saved',
        'by' => (string) $this->currentUser->id(),
      ]);
    }
  }

  /**
   * A contact form was sent. The site keeps nothing of it.
   */
  #[Hook('contact_message_insert')]
  public function contactMessage(MessageInterface $message): void {
    if (!$this->isNews($message) || !$this->configFactory->get('push_server.settings')->get('notify.contact')) {
      return;
    }
    $form = $message->getContactForm();
    $this->outbox->add('contact', [
      'sender' => (int) $this->currentUser->id(),
      'name' => (string) $message->getSenderName(),
      'subject' => (string) $message->getSubject(),
      'uids' => $message->isPersonal() ? [(int) $message->getPersonalRecipient()->id()] : [],
      'mails' => $message->isPersonal() ? [] : array_values($form->getRecipients()),
      'form' => $message->isPersonal() ? '' : (string) $form->label(),
    ]);
  }

  /**
   * The private_message module has saved a message.
   */
  #[Hook('private_message_insert')]
  public function privateMessage(EntityInterface $message): void {
    if ($this->isNews($message) && $this->configFactory->get('push_server.settings')->get('notify.private_message')) {
      $this->outbox->add('private_message', ['id' => (string) $message->id()]);
    }
  }

  /**
   * Remember what happened to a comment.
   */
  private function comment(string $what, CommentInterface $comment): void {
    if ($this->isNews($comment)) {
      $this->outbox->add('comment', [
        'what' => $what,
        'id' => (string) $comment->id(),
        'entityType' => $comment->getCommentedEntityTypeId(),
        'entityId' => (string) $comment->getCommentedEntityId(),
        'field' => (string) $comment->getFieldName(),
      ]);
    }
  }

  /**
   * What is imported, migrated or installed is no news.
   */
  private function isNews(EntityInterface $entity): bool {
    $isSyncing = method_exists($entity, 'isSyncing') && $entity->isSyncing();
    $isDefault = !method_exists($entity, 'isDefaultRevision') || $entity->isDefaultRevision();
    return !$isSyncing && $isDefault && !\Drupal::isConfigSyncing() && !InstallerKernel::installationAttempted();
  }

}
