<?php

declare(strict_types=1);

namespace PushServer\Store;

use PushServer\Command;
use PushServer\Exception\SpoolException;

/**
 * Keeps what cannot be sent now, for any process to send later.
 *
 * Revocations come out first, everything else in the order in which it was made. The caller of
 * take() and remove() holds the lock; put() and isEmpty() need none.
 */
interface Spool
{
    /**
     * @param non-empty-list<Command> $commands
     * @throws SpoolException
     */
    public function put(array $commands): void;

    public function isEmpty(): bool;

    /**
     * Become the one process that sends; false, at once, if there is another.
     */
    public function lock(): bool;

    public function unlock(): void;

    /**
     * The first entries, as far as they fit; one at least.
     *
     * @return array<string, list<Command>> by the key under which remove() knows the entry
     */
    public function take(int $commands, int $bytes): array;

    /**
     * @param list<string> $keys
     */
    public function remove(array $keys): void;

    /**
     * Drop publications made before this time. Revocations never expire.
     *
     * @return int how many entries were dropped
     */
    public function expire(float $before): int;
}
