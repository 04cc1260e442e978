<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Thrown if commands cannot be kept for later.
 */
final class SpoolException extends \RuntimeException implements PushException
{
}
