<?php

declare(strict_types=1);

namespace Drupal\push_server\EventSubscriber;

use Drupal\Core\Cache\CacheableResponseInterface;
use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\push_server\Bridge;
use Symfony\Component\EventDispatcher\EventSubscriberInterface;
use Symfony\Component\HttpKernel\Event\ResponseEvent;
use Symfony\Component\HttpKernel\KernelEvents;

/**
 * Says "Origin-Agent-Cluster: ?0" with every answer, for document.domain.
 *
 * Without it, Chromium ignores document.domain. The first document of an origin
 * decides for all, so files and error pages of the web server need it, too.
 * Where the web server adds it to everything, switch this off: twice is as good
 * as not at all.
 */
final class AgentClusterSubscriber implements EventSubscriberInterface {

  public function __construct(
    private readonly ConfigFactoryInterface $configFactory,
    private readonly Bridge $bridge,
  ) {}

  /**
   * Add the header.
   */
  public function onResponse(ResponseEvent $event): void {
    if (!$event->isMainRequest()) {
      return;
    }
    $config = $this->configFactory->get('push_server.settings');
    $response = $event->getResponse();
    if ($response instanceof CacheableResponseInterface) {
      // Pages in the page cache have it, or have it not, as it was then.
      $response->addCacheableDependency($config);
    }
    if ($config->get('agent_cluster') && $this->bridge->isWanted($event->getRequest())) {
      $response->headers->set('Origin-Agent-Cluster', '?0');
    }
  }

  /**
   * {@inheritdoc}
   */
  public static function getSubscribedEvents(): array {
    // After modules that set security headers of their own.
    return [KernelEvents::RESPONSE => ['onResponse', -50]];
  }

}
