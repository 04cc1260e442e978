<?php

declare(strict_types=1);

namespace PushServer;

/**
 * For classes that hold keys: a dump of them, in a log or on a page with errors, shows none.
 *
 * @internal
 */
trait HidesSecrets
{
    /**
     * @return array<string, string>
     */
    public function __debugInfo(): array
    {
        return ['keys' => '(secret)'];
    }
}
