<?php

declare(strict_types=1);

namespace Drupal\push_server\Hook;

use Drupal\comment\CommentInterface;
use Drupal\Component\Utility\DeprecationHelper;
use Drupal\contact\MessageInterface;
use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Entity\EntityInterface;
use Drupal\Core\Hook\Attribute\Hook;
use Drupal\Core\Installer\InstallerKernel;
use Drupal\Core\Session\AccountInterface;
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
   * Who has the form open is told that the copy in it is old.
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
   * A contact form was sent.
   *
   * Its message is not stored, and so no hook tells of it but that of the mail.
   *
   * @param array<string, mixed> $mail
   *   The mail that is about to be sent.
   */
  #[Hook('mail_alter')]
  public function mailAlter(array &$mail): void {
    $message = $mail['params']['contact_message'] ?? NULL;
    if (!$message instanceof MessageInterface
      || !in_array($mail['id'], ['contact_page_mail', 'contact_user_mail'], TRUE)
      || !$this->configFactory->get('push_server.settings')->get('notify.contact')) {
      return;
    }
    $isPersonal = $message->isPersonal();
    $this->outbox->add('contact', [
      'sender' => (int) $this->currentUser->id(),
      'name' => (string) $message->getSenderName(),
      'subject' => (string) $message->getSubject(),
      'uids' => $isPersonal ? [(int) $message->getPersonalRecipient()->id()] : [],
      'mails' => $isPersonal ? [] : array_values($message->getContactForm()->getRecipients()),
      'form' => $isPersonal ? '' : (string) $message->getContactForm()->label(),
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
