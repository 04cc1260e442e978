<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Thrown if a request was sent and no answer that makes sense came back in time.
 */
final class NoAnswer extends CallFailed
{
}
