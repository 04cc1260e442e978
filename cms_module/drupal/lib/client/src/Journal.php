<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Store\Flags;

/**
 * What the site's log is told: an outage once, any other problem once an hour.
 */
final class Journal
{
    private const REMINDER = 3600;

    /**
     * @param \Closure(string, string, array<string, mixed>): mixed $log level, message and context, as
     *     the log() of a PSR-3 logger takes them
     */
    public function __construct(private readonly \Closure $log, private readonly Flags $flags)
    {
    }

    /**
     * For those who give no log: PHP's own.
     */
    public static function toErrorLog(): \Closure
    {
        return static function (string $level, string $message): void {
            error_log("push: $message");
        };
    }

    /**
     * @param array<string, mixed> $context
     */
    public function write(string $level, string $message, array $context = []): void
    {
        try {
            ($this->log)($level, $message, $context);
        } catch (\Throwable) {
            // A log that fails must not break the page either.
        }
    }

    /**
     * A problem that every request may meet.
     *
     * @param array<string, mixed> $context
     */
    public function once(string $topic, string $message, array $context = []): void
    {
        if ($this->flags->raise("said-$topic", self::REMINDER)) {
            $this->write('error', $message, $context);
        }
    }
}
