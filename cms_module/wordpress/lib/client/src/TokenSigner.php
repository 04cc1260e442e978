<?php

declare(strict_types=1);

namespace PushServer;

/**
 * Signs tokens: the format of itsdangerous' URLSafeSerializer with HMAC-SHA256 throughout.
 *
 * token = P "." B64(HMAC(HMAC(key, salt), P)), where P = B64(JSON) and B64 is base64url without
 * padding. Nothing is ever compressed. Salt and digest are passed on purpose: the library's own
 * defaults are others.
 */
final class TokenSigner
{
    use HidesSecrets;

    private const SALT = 'push.connect.v1';

    private readonly string $signingKey;

    public function __construct(#[\SensitiveParameter] string $key)
    {
        $this->signingKey = hash_hmac('sha256', self::SALT, $key, true);
    }

    /**
     * The token over these claims.
     */
    public function sign(string $json): string
    {
        $payload = self::base64($json);
        return $payload . '.' . self::base64(hash_hmac('sha256', $payload, $this->signingKey, true));
    }

    private static function base64(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
