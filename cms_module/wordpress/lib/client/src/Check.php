<?php

declare(strict_types=1);

namespace PushServer;

/**
 * One result of Client::testConnection(): a name, how it went, and a sentence with the remedy.
 *
 * The names are those of `push-server doctor`, which sees more from the push host.
 */
final class Check
{
    private const TITLES = [
        'settings' => 'Settings',
        'names' => 'Name of the push host',
        'port' => 'Port',
        'tls' => 'Certificate',
        'push_host' => 'The way to the push server',
        'agent_cluster' => 'document.domain',
        'frame' => 'Embedding',
        'token_key' => 'Token key',
        'forwarded' => "Visitor's address",
        'streaming' => 'Streaming',
        'api' => 'Internal API',
        'api_key' => 'API key',
        'api_private' => 'Privacy of the API',
        'clock' => 'Clocks',
        'versions' => 'Versions',
        'speed' => 'Speed',
        'spool' => 'What waits to be sent',
        'after_response' => 'Sending after the page',
    ];

    public function __construct(
        public readonly string $name,
        public readonly CheckStatus $status,
        public readonly string $message
    ) {
    }

    /**
     * A few words for a table.
     */
    public function title(): string
    {
        return self::TITLES[$this->name] ?? ucfirst(str_replace('_', ' ', $this->name));
    }
}
