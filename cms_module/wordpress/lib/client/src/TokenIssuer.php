<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\InvalidCall;

/**
 * Issues the token with which a page of a logged-in user listens.
 *
 * Issue one only for a user whose session you have checked in this very request. Never let a page
 * that any cache may store carry it.
 *
 * The token holds a keyed hash of the session id, so that revoking by session works and whoever
 * reads the token learns nothing about the session.
 */
final class TokenIssuer
{
    use HidesSecrets;

    private const SIZE_LIMIT = 4096;
    private const LIFETIME_LIMIT = 7 * 86_400;

    /**
     * @param non-empty-list<string> $keys oldest first; the last one signs
     * @param \Closure(): float|null $clock unix seconds
     */
    public function __construct(
        #[\SensitiveParameter] private readonly array $keys,
        private readonly ?\Closure $clock = null
    ) {
    }

    /**
     * A token for this user in this session; the session id may be empty for anonymous visitors.
     *
     * @param list<string> $subscribe channels, or prefixes followed by "*"; "user:<id>" is always granted
     * @param list<string> $publish the same for publishing from the browser
     * @param int $lifetime seconds; the browser asks for a new token in time
     * @param string|null $name what other users may be shown
     * @throws InvalidCall
     */
    public function issue(
        string $user,
        #[\SensitiveParameter] string $sessionId,
        array $subscribe = [],
        array $publish = [],
        int $lifetime = 3600,
        ?string $name = null,
        ?string $jti = null
    ): string {
        Channel::personal($user);
        if ($lifetime < 1 || $lifetime > self::LIFETIME_LIMIT) {
            throw new InvalidCall('lifetime', 'A token lives from one second to seven days.');
        }
        $now = (int) ($this->clock ? ($this->clock)() : time());
        $claims = [
            'v' => 1,
            'sub' => $user,
            'sid' => $sessionId === '' ? '' : $this->hashSession($sessionId),
            'iat' => $now,
            'exp' => $now + $lifetime,
            'sub_ch' => self::listed($subscribe),
            'pub_ch' => self::listed($publish),
        ];
        $claims += array_filter(['name' => $name, 'jti' => $jti], is_string(...));
        try {
            $json = json_encode($claims, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES);
        } catch (\JsonException $reason) {
            throw new InvalidCall('not_utf8', 'A token holds UTF-8 text only: check the name.', $reason);
        }
        $token = (new TokenSigner($this->keys[array_key_last($this->keys)]))->sign($json);
        if (strlen($token) > self::SIZE_LIMIT) {
            $message = sprintf(
                'The token of user %s would have %d characters, and %d is the limit: grant prefixes such as'
                . ' "node:*" instead of many channels.',
                $user,
                strlen($token),
                self::SIZE_LIMIT
            );
            throw new InvalidCall('token_too_large', $message);
        }
        return $token;
    }

    /**
     * What the push server knows of a session.
     */
    public function hashSession(#[\SensitiveParameter] string $sessionId): string
    {
        return self::hash($sessionId, $this->keys[array_key_last($this->keys)]);
    }

    /**
     * Under which names tokens of this session may be in use: one for each key.
     *
     * @return non-empty-list<string>
     */
    public function hashesOfSession(#[\SensitiveParameter] string $sessionId): array
    {
        return array_map(static fn (string $key): string => self::hash($sessionId, $key), $this->keys);
    }

    private static function hash(string $sessionId, string $key): string
    {
        return hash_hmac('sha256', "push-session:$sessionId", $key);
    }

    /**
     * @param array<string> $channels
     * @return list<string>
     */
    private static function listed(array $channels): array
    {
        foreach ($channels as $channel) {
            if (!is_string($channel) || !Channel::isNameOrPattern($channel)) {
                // For its message.
                Channel::check(is_string($channel) ? rtrim($channel, '*') : '');
                throw new InvalidCall('channel_malformed', 'A "*" stands only at the end of a channel name.');
            }
        }
        return array_values($channels);
    }
}
