<?php

declare(strict_types=1);

namespace Drupal\push_server\Notification;

use Drupal\comment\CommentInterface;
use Drupal\Component\Utility\Html;
use Drupal\Component\Utility\Unicode;
use Drupal\Core\Entity\EntityInterface;
use Drupal\Core\Entity\EntityTypeManagerInterface;
use Drupal\Core\StringTranslation\StringTranslationTrait;
use Drupal\Core\StringTranslation\TranslationInterface;
use Drupal\user\UserInterface;

/**
 * What a notification says to a user, in the language of that user.
 *
 * Access is asked here, at every look: what a user may not view any more is not
 * in the list any more.
 */
final class View {

  use StringTranslationTrait;

  private const TEXT_LENGTH = 140;

  public function __construct(
    private readonly EntityTypeManagerInterface $entityTypeManager,
    TranslationInterface $stringTranslation,
  ) {
    $this->setStringTranslation($stringTranslation);
  }

  /**
   * The item as notifications.js takes it; NULL if it is not for this user.
   *
   * @param object $row
   *   A row of the store.
   * @param \Drupal\user\UserInterface $account
   *   Who looks.
   *
   * @return array<string, string|int>|null
   *   Plain text by name.
   */
  public function item(object $row, UserInterface $account): ?array {
    $item = $this->plainItem($row);
    if ($row->entity_type === '') {
      return $item;
    }
    $entity = $this->entityTypeManager->hasDefinition($row->entity_type)
      ? $this->entityTypeManager->getStorage($row->entity_type)->load($row->entity_id)
      : NULL;
    if ($entity === NULL || !$this->mayView($entity, $account)) {
      return NULL;
    }
    return $entity instanceof CommentInterface && in_array($row->type, ['comment', 'reply'], TRUE)
      ? $this->ofComment($item, $row->type, $entity, $account)
      : $item;
  }

  /**
   * The item of what is about no entity: the same for everybody.
   *
   * @param object $row
   *   A row of the store.
   *
   * @return array<string, string|int>
   *   Plain text by name.
   */
  public function plainItem(object $row): array {
    return [
      'id' => (int) $row->id,
      'title' => $row->title,
      'text' => $row->body,
      'sender' => $row->actor,
      'at' => (int) $row->created,
      // A path of this site and nothing else, whoever has made it. Browsers
      // take a backslash for a slash, and leave out tabs and ends of lines.
      'url' => preg_match('~\A/(?![/\\\\])[^\x00-\x1f]*\z~', $row->url) ? $row->url : '',
    ];
  }

  /**
   * Whether a user may view an entity, and what it belongs to.
   */
  public function mayView(EntityInterface $entity, UserInterface $account): bool {
    if (!$entity->access('view', $account)) {
      return FALSE;
    }
    if (!$entity instanceof CommentInterface) {
      return TRUE;
    }
    // An administrator may view what is not published, but it is no news yet.
    return $entity->isPublished() && (bool) $entity->getCommentedEntity()?->access('view', $account);
  }

  /**
   * Fill in what a comment says now.
   *
   * @param array<string, string|int> $item
   *   The item.
   * @param string $type
   *   Either "comment" or "reply".
   * @param \Drupal\comment\CommentInterface $comment
   *   The comment.
   * @param \Drupal\user\UserInterface $account
   *   Who looks.
   *
   * @return array<string, string|int>
   *   The whole item.
   */
  private function ofComment(array $item, string $type, CommentInterface $comment, UserInterface $account): array {
    $arguments = ['@title' => $comment->getCommentedEntity()->label()];
    $options = ['langcode' => $account->getPreferredLangcode()];
    $title = $type === 'reply'
      ? $this->t('Reply to your comment on @title', $arguments, $options)
      : $this->t('New comment on @title', $arguments, $options);
    return [
      'title' => Html::decodeEntities((string) $title),
      'text' => $this->excerpt($comment, $account),
      'sender' => $this->author($comment, $options),
      'url' => $comment->toUrl()->setOption('fragment', "comment-{$comment->id()}")->toString(),
    ] + $item;
  }

  /**
   * Who wrote a comment; of a visitor, the name that was given.
   *
   * @param \Drupal\comment\CommentInterface $comment
   *   The comment.
   * @param array<string, string> $options
   *   The language of who looks.
   */
  private function author(CommentInterface $comment, array $options): string {
    if (!$comment->getOwner()->isAnonymous()) {
      return (string) $comment->getOwner()->getDisplayName();
    }
    $name = $this->t('@name (not verified)', ['@name' => $comment->getAuthorName()], $options);
    return Html::decodeEntities((string) $name);
  }

  /**
   * The beginning of a comment as plain text.
   */
  private function excerpt(CommentInterface $comment, UserInterface $account): string {
    $field = $comment->hasField('comment_body') ? $comment->get('comment_body') : NULL;
    if ($field === NULL || $field->isEmpty() || !$field->access('view', $account)) {
      return '';
    }
    // Filtered as on the page: what a filter takes out is not shown here.
    $text = Html::decodeEntities(strip_tags((string) $field->processed));
    $text = trim((string) preg_replace('/\s+/u', ' ', $text));
    return Unicode::truncate($text, self::TEXT_LENGTH, TRUE, TRUE);
  }

}
