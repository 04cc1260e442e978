<?php

declare(strict_types=1);

namespace Drupal\push_server\Plugin\Block;

use Drupal\Core\Access\AccessResult;
use Drupal\Core\Access\AccessResultInterface;
use Drupal\Core\Block\Attribute\Block;
use Drupal\Core\Block\BlockBase;
use Drupal\Core\Plugin\ContainerFactoryPluginInterface;
use Drupal\Core\Session\AccountInterface;
use Drupal\Core\StringTranslation\TranslatableMarkup;
use Drupal\Core\Url;
use Drupal\push_server\PageSettings;
use Symfony\Component\DependencyInjection\ContainerInterface;

/**
 * A bell with a counter, the list behind it, and notes in the corner.
 *
 * It is the same for all users; what it shows comes by itself.
 */
#[Block(
  id: 'push_server_notifications',
  admin_label: new TranslatableMarkup('Notifications'),
  category: new TranslatableMarkup('Push server'),
)]
final class NotificationsBlock extends BlockBase implements ContainerFactoryPluginInterface {

  /**
   * Makes the block.
   *
   * @param array<string, mixed> $configuration
   *   The configuration of the block.
   * @param string $plugin_id
   *   The id of the plugin.
   * @param mixed $plugin_definition
   *   The definition of the plugin.
   * @param \Drupal\push_server\PageSettings $page
   *   What a page has to know.
   */
  public function __construct(
    array $configuration,
    string $plugin_id,
    mixed $plugin_definition,
    protected PageSettings $page,
  ) {
    parent::__construct($configuration, $plugin_id, $plugin_definition);
  }

  /**
   * {@inheritdoc}
   */
  public static function create(
    ContainerInterface $container,
    array $configuration,
    $plugin_id,
    $plugin_definition,
  ): self {
    return new self($configuration, $plugin_id, $plugin_definition, $container->get(PageSettings::class));
  }

  /**
   * {@inheritdoc}
   */
  public function defaultConfiguration(): array {
    return ['label_display' => FALSE];
  }

  /**
   * {@inheritdoc}
   */
  protected function blockAccess(AccountInterface $account): AccessResultInterface {
    return AccessResult::allowedIf($this->page->isFor($account))
      ->addCacheContexts(['user.permissions', 'user.roles:authenticated']);
  }

  /**
   * {@inheritdoc}
   */
  public function build(): array {
    $build = ['#theme' => 'push_server_bell', '#url' => Url::fromRoute('push_server.page')->toString()];
    $this->page->attach($build, 'notifications');
    return $build;
  }

}
