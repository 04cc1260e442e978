<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Core\Access\CsrfTokenGenerator;
use Drupal\Core\Cache\CacheableMetadata;
use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Session\AccountInterface;
use Drupal\Core\Url;
use Symfony\Component\HttpFoundation\RequestStack;

/**
 * What a page has to know to connect.
 *
 * In two parts, because of the caches. What is the same for everybody is
 * attached to the page, which the dynamic page cache keeps for all users with
 * the same permissions. What belongs to one user is added to each response
 * after that cache, in hook_js_settings_alter(), and never for anonymous users,
 * whose finished pages are kept.
 */
final class PageSettings {

  public function __construct(
    private readonly ConfigFactoryInterface $configFactory,
    private readonly ClientFactory $clients,
    private readonly Tokens $tokens,
    private readonly Bridge $bridge,
    private readonly Channels $channels,
    private readonly CsrfTokenGenerator $csrf,
    private readonly AccountInterface $currentUser,
    private readonly RequestStack $requestStack,
  ) {}

  /**
   * Attach a library of this module, for those who may receive anything.
   *
   * @param array<string, mixed> $element
   *   A render array.
   * @param string $library
   *   Its name, without that of the module.
   */
  public function attach(array &$element, string $library): void {
    $config = $this->configFactory->get('push_server.settings');
    $metadata = CacheableMetadata::createFromRenderArray($element)
      ->addCacheableDependency($config)
      ->addCacheContexts(['user.permissions', 'user.roles:authenticated']);
    if ($this->isFor($this->currentUser)) {
      $element['#attached']['library'][] = "push_server/$library";
      $element['#attached']['drupalSettings']['pushServer'] = [
        'listUrl' => Url::fromRoute('push_server.list')->toString(),
      ];
    }
    $metadata->applyTo($element);
  }

  /**
   * Whether pages of this user connect.
   */
  public function isFor(AccountInterface $account): bool {
    return $account->isAuthenticated() && $account->hasPermission(Tokens::PERMISSION);
  }

  /**
   * Add what belongs to the user whose response this is.
   *
   * @param array<string, mixed> $settings
   *   What is about to become drupalSettings.
   */
  public function personalise(array &$settings): void {
    $request = $this->requestStack->getMainRequest();
    if (!isset($settings['pushServer']) || $request === NULL || !$this->isFor($this->currentUser)) {
      return;
    }
    $isInPage = (bool) $this->configFactory->get('push_server.settings')->get('token_in_page');
    // The path is what the access check of the route takes the token for.
    $seen = Url::fromRoute('push_server.seen');
    $settings['pushServer'] += [
      'server' => $this->clients->client()->url(),
      'documentDomain' => $this->bridge->ofPage($request),
      'token' => $isInPage ? $this->tokens->issue($request, $this->currentUser) : NULL,
      'tokenUrl' => Url::fromRoute('push_server.token', [], [
        'query' => ['user' => $this->currentUser->id()],
      ])->toString(),
      'channels' => $this->channels->ofAccount($this->currentUser),
      'seenUrl' => $seen->setOption('query', ['token' => $this->csrf->get($seen->getInternalPath())])->toString(),
    ];
  }

}
