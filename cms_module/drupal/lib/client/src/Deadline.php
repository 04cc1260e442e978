<?php

declare(strict_types=1);

namespace PushServer;

/**
 * How much time is left for something, by a clock that nobody sets.
 *
 * @internal
 */
final class Deadline
{
    private readonly float $end;

    public function __construct(float $seconds)
    {
        $this->end = hrtime(true) / 1e9 + $seconds;
    }

    public function left(): float
    {
        return max(0.0, $this->end - hrtime(true) / 1e9);
    }
}
