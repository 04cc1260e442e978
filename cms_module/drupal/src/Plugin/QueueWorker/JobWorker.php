<?php

declare(strict_types=1);

namespace Drupal\push_server\Plugin\QueueWorker;

use Drupal\Core\Plugin\ContainerFactoryPluginInterface;
use Drupal\Core\Queue\Attribute\QueueWorker;
use Drupal\Core\Queue\QueueWorkerBase;
use Drupal\Core\StringTranslation\TranslatableMarkup;
use Drupal\push_server\JobRunner;
use Drupal\push_server\Outbox;
use Symfony\Component\DependencyInjection\ContainerInterface;

/**
 * Does what web requests have left to it, with the delivery "queue".
 *
 * The push server may be away: what is sent to it waits in the spool then, so
 * an item is done when it was worked out.
 */
#[QueueWorker(
  id: Outbox::QUEUE,
  title: new TranslatableMarkup('Push server: notifications'),
  cron: ['time' => 30],
)]
final class JobWorker extends QueueWorkerBase implements ContainerFactoryPluginInterface {

  /**
   * Makes the worker.
   *
   * @param array<string, mixed> $configuration
   *   The configuration of the plugin.
   * @param string $plugin_id
   *   The id of the plugin.
   * @param mixed $plugin_definition
   *   The definition of the plugin.
   * @param \Drupal\push_server\JobRunner $runner
   *   Does the jobs.
   * @param \Drupal\push_server\Outbox $outbox
   *   Sends what they make.
   */
  public function __construct(
    array $configuration,
    string $plugin_id,
    mixed $plugin_definition,
    protected JobRunner $runner,
    protected Outbox $outbox,
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
    return new self(
      $configuration,
      $plugin_id,
      $plugin_definition,
      $container->get(JobRunner::class),
      $container->get(Outbox::class),
    );
  }

  /**
   * {@inheritdoc}
   */
  public function processItem($data): void {
    $this->runner->run($data);
    // Throws nothing, or the item would be done twice.
    $this->outbox->destruct();
  }

}
