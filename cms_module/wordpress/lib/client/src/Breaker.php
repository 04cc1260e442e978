<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Store\Flags;

/**
 * The circuit breaker: after a failure, nobody tries for a while, and then one process does.
 *
 * Without it, every PHP worker would wait its 0.3 seconds for a server that hangs, and the site
 * would stand still although each visitor already has the page.
 */
final class Breaker
{
    /** Seconds in which nobody tries. */
    public const PAUSE = 5;
    /** Seconds after which an outage that goes on is worth another line in the log. */
    private const REMINDER = 86_400;

    public function __construct(private readonly Flags $flags)
    {
    }

    /**
     * Whether this process may try now.
     */
    public function allows(): bool
    {
        return !$this->flags->isUp('away') || $this->flags->raise('pause', self::PAUSE);
    }

    /**
     * The server is away. True if this is news.
     */
    public function open(): bool
    {
        $this->flags->raise('pause', self::PAUSE);
        return $this->flags->raise('away', self::REMINDER);
    }

    /**
     * The server has answered. True if this is news.
     */
    public function close(): bool
    {
        if (!$this->flags->isUp('away')) {
            return false;
        }
        $this->flags->lower('pause');
        return $this->flags->lower('away');
    }
}
