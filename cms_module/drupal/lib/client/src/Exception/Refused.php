<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Thrown if the push server answered with an error.
 */
final class Refused extends CallFailed
{
    public function __construct(string $reason, string $message, public readonly int $status)
    {
        parent::__construct($reason, $message);
    }
}
