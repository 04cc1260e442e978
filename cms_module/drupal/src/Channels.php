<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Component\Utility\Crypt;
use Drupal\Core\Entity\EntityInterface;
use Drupal\Core\PrivateKey;
use Drupal\Core\Session\AccountInterface;
use Drupal\Core\Site\Settings;
use Drupal\push_server\Event\GrantEvent;
use Psr\EventDispatcher\EventDispatcherInterface;

/**
 * The names of the channels, and who may listen to which.
 *
 * The channel of one page has a name that cannot be guessed. Only who may see
 * the page learns it, so all users can be granted the whole prefix, and all
 * pages of a user can share one connection. What is published there is that
 * something happened, never what; the page then asks the site.
 */
final class Channels {

  public const COMMENTS = 'comments';
  public const EDITORS = 'editors';

  public function __construct(
    private readonly PrivateKey $privateKey,
    private readonly EventDispatcherInterface $dispatcher,
  ) {}

  /**
   * The channel of everybody who is looking at one thing.
   *
   * @param string $purpose
   *   One of the constants of this class.
   * @param \Drupal\Core\Entity\EntityInterface $entity
   *   What they are looking at.
   * @param string $part
   *   A part of it, such as a field.
   */
  public function ofPage(string $purpose, EntityInterface $entity, string $part = ''): string {
    $what = implode(' ', ['push_server', $purpose, $entity->getEntityTypeId(), $entity->id(), $part]);
    return "$purpose:" . Crypt::hmacBase64($what, $this->privateKey->get() . Settings::getHashSalt());
  }

  /**
   * The channel of a user.
   */
  public function ofUser(int|string $uid): string {
    return "user:$uid";
  }

  /**
   * The channel of everybody who has a role.
   */
  public function ofRole(string $role): string {
    return "role:$role";
  }

  /**
   * The channels on which notifications come to this user.
   *
   * @return list<string>
   *   The user's own channel first.
   */
  public function ofAccount(AccountInterface $account): array {
    return [$this->ofUser($account->id()), ...array_map($this->ofRole(...), array_values($account->getRoles()))];
  }

  /**
   * What a token of this user is good for.
   */
  public function grants(AccountInterface $account): GrantEvent {
    $event = new GrantEvent($account);
    $event->subscribe(self::COMMENTS . ':*');
    $event->subscribe(self::EDITORS . ':*');
    foreach ($account->getRoles() as $role) {
      $event->subscribe($this->ofRole($role));
    }
    $this->dispatcher->dispatch($event);
    return $event;
  }

}
