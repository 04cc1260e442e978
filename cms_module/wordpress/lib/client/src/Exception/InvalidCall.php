<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Thrown if an argument cannot be sent, whatever the state of the push server.
 */
final class InvalidCall extends \InvalidArgumentException implements PushException
{
    public function __construct(
        public readonly string $reason,
        string $message,
        ?\Throwable $previous = null
    ) {
        parent::__construct($message, 0, $previous);
    }
}
