<?php

declare(strict_types=1);

namespace PushServer\Store;

/**
 * Small marks that all PHP processes of a site see, each with an end.
 *
 * They only save time and log lines: one that is lost costs an attempt or a line more.
 */
interface Flags
{
    /**
     * Put a flag up for some seconds. True for exactly one of the processes that try.
     */
    public function raise(string $name, int $seconds): bool;

    public function isUp(string $name): bool;

    /**
     * Take a flag down. True for the one process that did it.
     */
    public function lower(string $name): bool;
}
