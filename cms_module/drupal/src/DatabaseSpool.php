<?php

declare(strict_types=1);

namespace Drupal\push_server;

use Drupal\Core\Database\Connection;
use Drupal\Core\Lock\LockBackendInterface;
use PushServer\Command;
use PushServer\Exception\SpoolException;
use PushServer\Store\Spool;

/**
 * Keeps what cannot be sent now in a table, which all web servers share.
 *
 * A row is a command. A process that dies between sending and removing leaves
 * the row; sending it again publishes nothing twice, because every publication
 * has had its id since it was made.
 */
final class DatabaseSpool implements Spool {

  private const TABLE = 'push_server_spool';
  private const LOCK = 'push_server_spool';

  /**
   * Seconds after which a lock of a process that died is anybody's.
   */
  private const LOCK_SECONDS = 60.0;

  /**
   * Rows of a long outage; beyond that, the oldest publications go.
   */
  private const ROWS_LIMIT = 100_000;

  /**
   * Rows looked at in one take(): the database hands over all of them at once.
   */
  private const ROWS_TAKEN = 200;

  public function __construct(
    private readonly Connection $database,
    private readonly LockBackendInterface $lock,
  ) {}

  /**
   * {@inheritdoc}
   */
  public function put(array $commands): void {
    try {
      $insert = $this->database->insert(self::TABLE)->fields(['revocation', 'made', 'command']);
      foreach ($commands as $command) {
        $insert->values([(int) $command->isRevocation, self::microseconds($command->madeAt), $command->json]);
      }
      $insert->execute();
    }
    catch (\Exception $reason) {
      throw new SpoolException('The table ' . self::TABLE . " cannot be written: {$reason->getMessage()}");
    }
  }

  /**
   * {@inheritdoc}
   */
  public function isEmpty(): bool {
    try {
      return !$this->database->select(self::TABLE)->fields(self::TABLE, ['id'])->range(0, 1)->execute()->fetchField();
    }
    catch (\Exception) {
      // Nothing can be taken from a table that cannot be read.
      return TRUE;
    }
  }

  /**
   * {@inheritdoc}
   */
  public function lock(): bool {
    return $this->lock->acquire(self::LOCK, self::LOCK_SECONDS);
  }

  /**
   * {@inheritdoc}
   */
  public function unlock(): void {
    $this->lock->release(self::LOCK);
  }

  /**
   * {@inheritdoc}
   */
  public function take(int $commands, int $bytes): array {
    $rows = $this->database->select(self::TABLE, 's')
      ->fields('s', ['id', 'revocation', 'made', 'command'])
      ->orderBy('revocation', 'DESC')
      ->orderBy('made')
      ->orderBy('id')
      ->range(0, min($commands, self::ROWS_TAKEN))
      ->execute();
    $taken = [];
    foreach ($rows as $row) {
      $bytes -= strlen($row->command) + 1;
      if ($taken && $bytes < 0) {
        break;
      }
      $taken[(string) $row->id] = [new Command($row->command, (bool) $row->revocation, $row->made / 1e6)];
    }
    return $taken;
  }

  /**
   * {@inheritdoc}
   */
  public function remove(array $keys): void {
    foreach (array_chunk($keys, 500) as $part) {
      $this->database->delete(self::TABLE)->condition('id', $part, 'IN')->execute();
    }
  }

  /**
   * {@inheritdoc}
   */
  public function expire(float $before): int {
    $surplus = $this->database->select(self::TABLE, 's')
      ->fields('s', ['id'])
      ->condition('revocation', 0)
      ->orderBy('id', 'DESC')
      ->range(self::ROWS_LIMIT, 1)
      ->execute()
      ->fetchField();
    $old = $this->database->condition('OR')
      ->condition('made', self::microseconds($before), '<')
      ->condition('id', (int) $surplus, '<=');
    return (int) $this->database->delete(self::TABLE)->condition('revocation', 0)->condition($old)->execute();
  }

  /**
   * How many commands wait, and since when.
   *
   * @return array{int, int|null}
   *   The number, and the unix second of the oldest one.
   */
  public function backlog(): array {
    $query = $this->database->select(self::TABLE, 's');
    $query->addExpression('COUNT(*)', 'number');
    $query->addExpression('MIN(made)', 'oldest');
    $row = $query->execute()->fetchObject();
    return [(int) $row->number, $row->oldest === NULL ? NULL : intdiv((int) $row->oldest, 1_000_000)];
  }

  /**
   * A time as the table has it: a whole number, so that no database rounds it.
   */
  private static function microseconds(float $time): int {
    return (int) round($time * 1e6);
  }

}
