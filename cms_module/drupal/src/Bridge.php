<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Routing\AdminContext;
use Symfony\Component\HttpFoundation\Request;

/**
 * How a page and the frame of the push server talk.
 *
 * With document.domain they call each other directly, which browsers allow only
 * where both are below one domain and both send Origin-Agent-Cluster. Where a
 * browser refuses they send messages, which the owner can also choose. Pages of
 * the administration never set document.domain: another host below the domain
 * that sets it, too, could act in them.
 */
final class Bridge {

  public const DOCUMENT_DOMAIN = 'document.domain';
  public const MESSAGES = 'messages';

  public function __construct(
    private readonly ConfigFactoryInterface $configFactory,
    private readonly ClientFactory $clients,
    private readonly AdminContext $adminContext,
  ) {}

  /**
   * What the page of this request sets document.domain to; "" for messages.
   */
  public function ofPage(Request $request): string {
    return $this->adminContext->isAdminRoute() ? '' : $this->domain($request);
  }

  /**
   * Whether the site uses document.domain, on any of its pages.
   */
  public function isWanted(Request $request): bool {
    return $this->domain($request) !== '';
  }

  /**
   * The domain that this host and the push host share, if it is wanted.
   */
  private function domain(Request $request): string {
    if ($this->configFactory->get('push_server.settings')->get('bridge') !== self::DOCUMENT_DOMAIN) {
      return '';
    }
    $url = (string) ($this->clients->settings()['url'] ?? '');
    return self::shared($request->getHost(), (string) parse_url($url, PHP_URL_HOST));
  }

  /**
   * The last labels that two names share: at least two, and no address.
   */
  public static function shared(string $one, string $other): string {
    if (filter_var(trim($one, '[]'), FILTER_VALIDATE_IP)) {
      return '';
    }
    $here = array_reverse(explode('.', strtolower($one)));
    $there = array_reverse(explode('.', strtolower($other)));
    $labels = [];
    foreach ($here as $index => $label) {
      if ($label !== ($there[$index] ?? NULL)) {
        break;
      }
      array_unshift($labels, $label);
    }
    return count($labels) > 1 ? implode('.', $labels) : '';
  }

}
