<?php

declare(strict_types=1);

namespace Drupal\push_server\Hook;

use Drupal\Component\Utility\DeprecationHelper;
use Drupal\Core\Hook\Attribute\Hook;
use Drupal\Core\Session\AccountInterface;
use Drupal\push_server\Notification\Store;
use Drupal\push_server\Outbox;
use Drupal\user\UserInterface;
use Symfony\Component\HttpFoundation\RequestStack;

/**
 * Ends connections where the site ends sessions, or takes rights away.
 */
final class SessionHooks {

  public function __construct(
    private readonly Outbox $outbox,
    private readonly Store $store,
    private readonly RequestStack $requestStack,
  ) {}

  /**
   * A logout ends one session, and no other of the same user.
   *
   * The session still exists here; after the response it does not.
   */
  #[Hook('user_logout')]
  public function logout(AccountInterface $account): void {
    $request = $this->requestStack->getCurrentRequest();
    $sessionId = $request?->hasSession() ? $request->getSession()->getId() : '';
    if ($sessionId !== '') {
      $this->outbox->revoke(sessionId: $sessionId);
    }
  }

  /**
   * Another password or other roles end all connections of a user.
   *
   * No hook tells of sessions that end this way. Pages that may go on get a new
   * token by themselves, with the rights that the user has now.
   */
  #[Hook('user_update')]
  public function update(UserInterface $account): void {
    $before = DeprecationHelper::backwardsCompatibleCall(
      \Drupal::VERSION,
      '11.2',
      static fn () => $account->getOriginal(),
      static fn () => $account->original,
    );
    $isOver = $before instanceof UserInterface && (
      $before->getPassword() !== $account->getPassword()
      || ($before->isActive() && $account->isBlocked())
      || array_diff($before->getRoles(), $account->getRoles()) !== []
      || array_diff($account->getRoles(), $before->getRoles()) !== []
    );
    if ($isOver) {
      $this->outbox->revoke(user: (string) $account->id());
    }
  }

  /**
   * A user who is deleted has no connections, and no notifications.
   */
  #[Hook('user_delete')]
  public function delete(UserInterface $account): void {
    $this->outbox->revoke(user: (string) $account->id());
    $this->store->forget((int) $account->id());
  }

}
