<?php

declare(strict_types=1);

namespace Drupal\push_server\Notification;

use Drupal\Component\Render\PlainTextOutput;
use Drupal\Core\Entity\EntityTypeManagerInterface;
use Drupal\Core\Entity\FieldableEntityInterface;
use Drupal\Core\StringTranslation\StringTranslationTrait;
use Drupal\Core\StringTranslation\TranslationInterface;
use Drupal\Core\Url;
use Drupal\user\UserInterface;

/**
 * Tells users of messages: by a contact form, or by the private_message module.
 */
final class MessageNotifier {

  use StringTranslationTrait;

  public function __construct(
    private readonly Notifier $notifier,
    private readonly EntityTypeManagerInterface $entityTypeManager,
    TranslationInterface $stringTranslation,
  ) {
    $this->setStringTranslation($stringTranslation);
  }

  /**
   * A contact form was sent: to a user, or to addresses, some of users.
   *
   * The site keeps no such message, so its subject is what there is to say.
   *
   * @param int $sender
   *   Who sent it.
   * @param string $name
   *   The name that was given.
   * @param string $subject
   *   The subject.
   * @param int[] $uids
   *   Users whom it is for.
   * @param string[] $mails
   *   Addresses that it goes to.
   * @param string $form
   *   The label of a form of the site; "" for a message to a user.
   */
  public function contact(int $sender, string $name, string $subject, array $uids, array $mails, string $form): void {
    $storage = $this->entityTypeManager->getStorage('user');
    if ($mails) {
      $found = $storage->getQuery()->accessCheck(FALSE)->condition('mail', $mails, 'IN')->execute();
      $uids = [...$uids, ...array_values($found)];
    }
    foreach ($storage->loadMultiple(array_diff(array_unique($uids), [0, $sender])) as $user) {
      assert($user instanceof UserInterface);
      $options = ['langcode' => $user->getPreferredLangcode()];
      $title = $form === ''
        ? $this->t('Message to you', [], $options)
        : $this->t('Message by the form @form', ['@form' => $form], $options);
      // Where an answer can be written.
      $url = $sender ? Url::fromRoute('entity.user.canonical', ['user' => $sender]) : Url::fromRoute('user.page');
      $from = $storage->load($sender);
      $from = $sender && $from instanceof UserInterface
        ? (string) $from->getDisplayName()
        : self::plain($this->t('@name (not verified)', ['@name' => $name], $options));
      $this->notifier->notify([$user->id()], 'contact', self::plain($title), $subject, $url->toString(), $from);
    }
  }

  /**
   * A message of the private_message module was saved.
   *
   * The module adds it to its thread afterwards, but in the same request.
   */
  public function privateMessage(string $id): void {
    if (!$this->entityTypeManager->hasDefinition('private_message_thread')) {
      return;
    }
    $message = $this->entityTypeManager->getStorage('private_message')->load($id);
    $storage = $this->entityTypeManager->getStorage('private_message_thread');
    $threads = $storage->getQuery()->accessCheck(FALSE)->condition('private_messages', $id)->range(0, 1)->execute();
    $thread = $threads ? $storage->load(reset($threads)) : NULL;
    if (!$message instanceof FieldableEntityInterface || !$thread instanceof FieldableEntityInterface) {
      return;
    }
    $owner = $message->get('owner')->entity;
    foreach ($thread->get('members')->referencedEntities() as $member) {
      if ($member->id() !== $owner?->id()) {
        $this->notifier->notify(
          [$member->id()],
          'private_message',
          self::plain($this->t('Private message', [], ['langcode' => $member->getPreferredLangcode()])),
          '',
          $thread->toUrl()->toString(),
          (string) $owner?->getDisplayName(),
          'private_message',
          $id,
        );
      }
    }
  }

  /**
   * A translated text without markup.
   */
  private static function plain(string|\Stringable $text): string {
    return PlainTextOutput::renderFromHtml($text);
  }

}
