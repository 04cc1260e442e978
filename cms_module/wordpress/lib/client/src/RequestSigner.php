<?php

declare(strict_types=1);

namespace PushServer;

/**
 * Signs requests as Standard Webhooks do: HMAC-SHA256 over "id.timestamp.body".
 */
final class RequestSigner
{
    use HidesSecrets;

    /**
     * @param non-empty-list<string> $keys decoded; each makes a signature, so that they can rotate
     */
    public function __construct(#[\SensitiveParameter] private readonly array $keys)
    {
    }

    /**
     * The value of webhook-signature.
     */
    public function sign(string $id, int $timestamp, string $body): string
    {
        $signed = "$id.$timestamp.$body";
        return implode(' ', array_map(
            static fn (string $key): string => 'v1,' . base64_encode(hash_hmac('sha256', $signed, $key, true)),
            $this->keys
        ));
    }
}
