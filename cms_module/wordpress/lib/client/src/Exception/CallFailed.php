<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Base of what can go wrong between here and the push server. `reason` is a stable word.
 */
abstract class CallFailed extends \RuntimeException implements PushException
{
    public function __construct(public readonly string $reason, string $message)
    {
        parent::__construct($message);
    }
}
