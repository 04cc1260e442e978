<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Thrown if no connection came about in time. The push server did nothing.
 */
final class Unreachable extends CallFailed
{
    /**
     * @param string $hop where the way ends: "names", "port" or "tls"
     */
    public function __construct(string $reason, string $message, public readonly string $hop = 'port')
    {
        parent::__construct($reason, $message);
    }
}
