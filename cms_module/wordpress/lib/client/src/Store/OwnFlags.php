<?php

declare(strict_types=1);

namespace PushServer\Store;

/**
 * Flags that only this process sees, where nothing can be shared.
 */
final class OwnFlags implements Flags
{
    /** @var array<string, float> */
    private array $until = [];

    public function raise(string $name, int $seconds): bool
    {
        if ($this->isUp($name)) {
            return false;
        }
        $this->until[$name] = microtime(true) + $seconds;
        return true;
    }

    public function isUp(string $name): bool
    {
        return ($this->until[$name] ?? 0.0) > microtime(true);
    }

    public function lower(string $name): bool
    {
        $wasUp = isset($this->until[$name]);
        unset($this->until[$name]);
        return $wasUp;
    }
}
