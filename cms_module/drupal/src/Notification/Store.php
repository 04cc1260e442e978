<?php

declare(strict_types=1);

namespace Drupal\push_server\Notification;

use Drupal\Component\Datetime\TimeInterface;
use Drupal\Core\Database\Connection;
use Drupal\Core\Session\AccountInterface;
use Drupal\user\UserDataInterface;
use Drupal\user\UserInterface;

/**
 * Keeps notifications, and how far each user has looked.
 */
final class Store {

  /**
   * How many a list shows.
   */
  public const SHOWN = 50;

  private const TABLE = 'push_server_notification';

  public function __construct(
    private readonly Connection $database,
    private readonly TimeInterface $time,
    private readonly UserDataInterface $userData,
  ) {}

  /**
   * Keep a notification.
   *
   * @param array<string, string|int> $values
   *   Values by the name of their column; what is missing is empty.
   *
   * @return object
   *   The row as it is in the table.
   */
  public function add(array $values): object {
    $row = $values + [
      'uid' => 0,
      'role' => '',
      'type' => 'custom',
      'entity_type' => '',
      'entity_id' => '',
      'actor' => '',
      'title' => '',
      'body' => '',
      'url' => '',
      'created' => $this->time->getCurrentTime(),
    ];
    $row['id'] = (int) $this->database->insert(self::TABLE)->fields($row)->execute();
    return (object) $row;
  }

  /**
   * The newest notifications of a user, and of the roles that the user has.
   *
   * @return object[]
   *   Rows, newest first.
   */
  public function ofAccount(UserInterface $account): array {
    $query = $this->database->select(self::TABLE, 'n')->fields('n');
    // What was announced before the account was there is old news.
    $ofRole = $query->andConditionGroup()
      ->condition('uid', 0)
      ->condition('role', $account->getRoles(), 'IN')
      ->condition('created', $account->getCreatedTime(), '>=');
    $either = $query->orConditionGroup()->condition('uid', (int) $account->id())->condition($ofRole);
    return $query->condition($either)
      ->orderBy('id', 'DESC')
      ->range(0, self::SHOWN)
      ->execute()
      ->fetchAll();
  }

  /**
   * The highest id that this user has looked at.
   */
  public function seen(AccountInterface $account): int {
    return (int) $this->userData->get('push_server', (int) $account->id(), 'seen');
  }

  /**
   * Remember how far this user has looked.
   *
   * @return int
   *   The highest id; it never falls, and is never beyond what there is.
   */
  public function markSeen(AccountInterface $account, int $id): int {
    $before = $this->seen($account);
    $query = $this->database->select(self::TABLE, 'n')->condition('id', $id, '<=');
    $query->addExpression('MAX(id)');
    $seen = max($before, (int) $query->execute()->fetchField());
    if ($seen > $before) {
      $this->userData->set('push_server', (int) $account->id(), 'seen', $seen);
    }
    return $seen;
  }

  /**
   * Forget a user.
   */
  public function forget(int $uid): void {
    $this->database->delete(self::TABLE)->condition('uid', $uid)->execute();
  }

  /**
   * Drop what is older than this.
   */
  public function expire(int $before): void {
    $this->database->delete(self::TABLE)->condition('created', $before, '<')->execute();
  }

}
