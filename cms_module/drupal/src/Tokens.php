<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Session\AccountInterface;
use Symfony\Component\HttpFoundation\Request;

/**
 * Issues the token with which the pages of one session listen.
 *
 * The token belongs to the session in which it was asked for: who logs out ends
 * its connections and nobody else's.
 */
final class Tokens {

  public const PERMISSION = 'receive push notifications';

  public function __construct(
    private readonly ClientFactory $clients,
    private readonly Channels $channels,
    private readonly Outbox $outbox,
    private readonly ConfigFactoryInterface $configFactory,
  ) {}

  /**
   * A token for who sent this request; NULL for everybody who gets none.
   */
  public function issue(Request $request, AccountInterface $account): ?string {
    $sessionId = $request->hasSession() ? $request->getSession()->getId() : '';
    if ($account->isAnonymous() || $sessionId === '' || !$account->hasPermission(self::PERMISSION)) {
      return NULL;
    }
    // While the push server is away, every page of a user helps a little.
    $this->outbox->help();
    [$subscribe, $publish] = $this->channels->grants($account)->lists();
    $lifetime = (int) $this->configFactory->get('push_server.settings')->get('token_lifetime');
    return $this->clients->client()->token(
      (string) $account->id(),
      $sessionId,
      $subscribe,
      $publish,
      $lifetime ?: 3600,
    );
  }

}
