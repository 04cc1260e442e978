<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PushServer\Store\Spool;

/**
 * A spool into which something is put at the worst moment: nothing more was found, and the lock is
 * still held.
 */
final class LatePut implements Spool
{
    /**
     * @param \Closure(): void|null $put
     */
    public function __construct(private readonly Spool $spool, private ?\Closure $put)
    {
    }

    public function put(array $commands): void
    {
        $this->spool->put($commands);
    }

    public function isEmpty(): bool
    {
        return $this->spool->isEmpty();
    }

    public function lock(): bool
    {
        return $this->spool->lock();
    }

    public function unlock(): void
    {
        $put = $this->put;
        $this->put = null;
        if ($put) {
            $put();
        }
        $this->spool->unlock();
    }

    public function take(int $commands, int $bytes): array
    {
        return $this->spool->take($commands, $bytes);
    }

    public function remove(array $keys): void
    {
        $this->spool->remove($keys);
    }

    public function expire(float $before): int
    {
        return $this->spool->expire($before);
    }
}
