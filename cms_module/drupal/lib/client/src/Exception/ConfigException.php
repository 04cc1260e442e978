<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * Thrown if settings are missing or wrong. Each problem is a sentence that names its setting.
 */
final class ConfigException extends \InvalidArgumentException implements PushException
{
    /**
     * @param non-empty-array<string, string> $problems sentence by name of the setting
     */
    public function __construct(public readonly array $problems)
    {
        parent::__construct(implode(' ', $problems));
    }
}
