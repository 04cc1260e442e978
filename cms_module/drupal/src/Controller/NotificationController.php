<?php

declare(strict_types=1);

namespace Drupal\push_server\Controller;

use Drupal\Core\Datetime\DateFormatterInterface;
use Drupal\Core\DependencyInjection\ContainerInjectionInterface;
use Drupal\Core\Entity\EntityTypeManagerInterface;
use Drupal\Core\Session\AccountInterface;
use Drupal\push_server\Notification\Notifier;
use Drupal\push_server\Notification\Store;
use Drupal\push_server\Notification\View;
use Drupal\push_server\Outbox;
use Drupal\push_server\PageSettings;
use Drupal\user\UserInterface;
use Symfony\Component\DependencyInjection\ContainerInterface;
use Symfony\Component\HttpFoundation\JsonResponse;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;

/**
 * The notifications of the user who is logged in.
 */
final class NotificationController implements ContainerInjectionInterface {

  private const NO_STORE = ['Cache-Control' => 'private, no-store'];

  public function __construct(
    private readonly Store $store,
    private readonly View $view,
    private readonly Notifier $notifier,
    private readonly Outbox $outbox,
    private readonly PageSettings $page,
    private readonly EntityTypeManagerInterface $entityTypeManager,
    private readonly DateFormatterInterface $dateFormatter,
    private readonly AccountInterface $currentUser,
  ) {}

  /**
   * {@inheritdoc}
   */
  public static function create(ContainerInterface $container): self {
    return new self(
      $container->get(Store::class),
      $container->get(View::class),
      $container->get(Notifier::class),
      $container->get(Outbox::class),
      $container->get(PageSettings::class),
      $container->get('entity_type.manager'),
      $container->get('date.formatter'),
      $container->get('current_user'),
    );
  }

  /**
   * What the bell shows.
   */
  public function list(): JsonResponse {
    $account = $this->account();
    return new JsonResponse(
      ['items' => $this->items($account), 'seen' => $this->store->seen($account)],
      200,
      self::NO_STORE,
    );
  }

  /**
   * The user has looked; all other pages of the same user are told.
   */
  public function seen(Request $request): Response {
    $account = $this->account();
    $id = (int) $request->request->get('seen');
    if ($id < 1) {
      return new JsonResponse(['message' => 'The field seen is the id of a notification.'], 400, self::NO_STORE);
    }
    $this->outbox->help();
    $this->notifier->seen($account, $this->store->markSeen($account, $id));
    return new Response('', 204, self::NO_STORE);
  }

  /**
   * The same list as a page, for whoever has no bell.
   *
   * @return array<string, mixed>
   *   A render array.
   */
  public function page(): array {
    $items = array_map(
      fn (array $item): array => ['date' => $this->dateFormatter->format($item['at'], 'short')] + $item,
      $this->items($this->account()),
    );
    $build = ['#theme' => 'push_server_list', '#items' => $items, '#cache' => ['max-age' => 0]];
    $this->page->attach($build, 'notifications');
    return $build;
  }

  /**
   * The newest notifications, as far as the user may know of them.
   *
   * @return list<array<string, string|int>>
   *   Items, newest first.
   */
  private function items(UserInterface $account): array {
    $items = array_map(fn (object $row): ?array => $this->view->item($row, $account), $this->store->ofAccount($account));
    return array_values(array_filter($items));
  }

  /**
   * The user entity of who is logged in.
   */
  private function account(): UserInterface {
    return $this->entityTypeManager->getStorage('user')->load($this->currentUser->id());
  }

}
