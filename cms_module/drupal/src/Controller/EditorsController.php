<?php

declare(strict_types=1);

namespace Drupal\push_server\Controller;

use Drupal\Core\DependencyInjection\ContainerInjectionInterface;
use Drupal\Core\Entity\EntityTypeManagerInterface;
use Drupal\Core\Session\AccountInterface;
use Drupal\node\NodeInterface;
use Drupal\push_server\Channels;
use Drupal\push_server\ClientFactory;
use Symfony\Component\DependencyInjection\ContainerInterface;
use Symfony\Component\HttpFoundation\JsonResponse;

/**
 * Who else has the form of a node open.
 */
final class EditorsController implements ContainerInjectionInterface {

  /**
   * Names that are enough for anybody.
   */
  private const SHOWN = 20;

  public function __construct(
    private readonly ClientFactory $clients,
    private readonly Channels $channels,
    private readonly EntityTypeManagerInterface $entityTypeManager,
    private readonly AccountInterface $currentUser,
  ) {}

  /**
   * {@inheritdoc}
   */
  public static function create(ContainerInterface $container): self {
    return new self(
      $container->get(ClientFactory::class),
      $container->get(Channels::class),
      $container->get('entity_type.manager'),
      $container->get('current_user'),
    );
  }

  /**
   * The names, by what the push server knows; for those who may edit the node.
   */
  public function editors(NodeInterface $node): JsonResponse {
    $present = $this->clients->client()->presence($this->channels->ofPage(Channels::EDITORS, $node)) ?? [];
    unset($present[(string) $this->currentUser->id()]);
    $uids = array_slice(array_keys($present), 0, self::SHOWN);
    $names = [];
    foreach ($this->entityTypeManager->getStorage('user')->loadMultiple($uids) as $user) {
      $names[] = (string) $user->getDisplayName();
    }
    return new JsonResponse(['names' => $names], 200, ['Cache-Control' => 'private, no-store']);
  }

}
