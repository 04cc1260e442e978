<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Thrown if no connection came about in time. The push server did nothing.
 */
final class Unreachable extends CallFailed
{
}
