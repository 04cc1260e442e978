<?php

declare(strict_types=1);

namespace PushServer;

/**
 * One result of Client::testConnection(): a name, how it went, and a sentence with the remedy.
 */
final class Check
{
    public function __construct(
        public readonly string $name,
        public readonly CheckStatus $status,
        public readonly string $message
    ) {
    }
}
