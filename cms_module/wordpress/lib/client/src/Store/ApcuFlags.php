<?php

declare(strict_types=1);

namespace PushServer\Store;

/**
 * Flags in the memory that the workers of one PHP-FPM or mod_php share.
 */
final class ApcuFlags implements Flags
{
    public function __construct(private readonly string $prefix)
    {
    }

    public function raise(string $name, int $seconds): bool
    {
        return apcu_add($this->prefix . $name, 1, $seconds);
    }

    public function isUp(string $name): bool
    {
        return apcu_exists($this->prefix . $name);
    }

    public function lower(string $name): bool
    {
        return apcu_delete($this->prefix . $name);
    }
}
