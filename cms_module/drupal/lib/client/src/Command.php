<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\InvalidCall;

/**
 * One command for the API, already encoded: what is published is what was there at the call.
 */
final class Command
{
    /** The API takes 32 levels; the list, the command and its params are three of them. */
    private const DEPTH = 29;

    /**
     * @param string $json ASCII on one line
     * @param float $madeAt unix seconds; unique and rising within a process
     */
    public function __construct(
        public readonly string $json,
        public readonly bool $isRevocation,
        public readonly float $madeAt
    ) {
    }

    /**
     * @throws InvalidCall
     */
    public static function publish(string $channel, mixed $data, string $id, ?string $exclude, float $now): self
    {
        return self::ofData('publish', ['channel' => Channel::check($channel)], $data, $id, $exclude, $now);
    }

    /**
     * @param list<string> $channels
     * @throws InvalidCall
     */
    public static function broadcast(array $channels, mixed $data, string $id, ?string $exclude, float $now): self
    {
        if (!$channels || count($channels) > 1000) {
            throw new InvalidCall('channels', 'A broadcast goes to 1 to 1,000 channels.');
        }
        $names = array_map(Channel::check(...), array_values($channels));
        return self::ofData('broadcast', ['channels' => $names], $data, $id, $exclude, $now);
    }

    /**
     * @param string|null $sid hash of a session id
     * @param int|null $before with $user: tokens issued at or before this second
     * @throws InvalidCall
     */
    public static function revoke(?string $sid, ?string $user, ?string $jti, ?int $before, float $now): self
    {
        $meant = array_filter(['sid' => $sid, 'user' => $user, 'jti' => $jti], is_string(...));
        foreach ($meant as $name => $value) {
            if ($value === '' || strlen($value) > 512) {
                throw new InvalidCall('params', "What is revoked by $name has 1 to 512 bytes.");
            }
        }
        if (!$meant) {
            throw new InvalidCall('params', 'A revocation names a session, a user or a token (jti).');
        }
        if ($user !== null) {
            // Fixed now: when a delayed one arrives, tokens of a later login must stay good.
            $meant['before'] = $before ?? (int) $now;
        }
        return new self(self::encode('revoke', self::json($meant, 'The arguments of revoke()')), true, $now);
    }

    /**
     * A question, which is not kept for later.
     *
     * @throws InvalidCall
     */
    public static function presence(string $channel): string
    {
        return self::encode('presence', self::json(['channel' => Channel::check($channel)], 'The arguments'));
    }

    /**
     * @param array<string, mixed> $params
     */
    private static function ofData(
        string $method,
        array $params,
        mixed $data,
        string $id,
        ?string $exclude,
        float $now
    ): self {
        $params['id'] = Channel::checkId($id, 'id');
        if ($exclude !== null) {
            $params['exclude'] = Channel::checkId($exclude, 'exclude');
        }
        $where = $params['channel'] ?? $params['channels'][0];
        $encoded = self::json($data, "The data for channel $where");
        $head = substr(self::json($params, 'The arguments'), 0, -1);
        return new self(self::encode($method, $head . ',"data":' . $encoded . '}'), false, $now);
    }

    private static function encode(string $method, string $params): string
    {
        return '{"method":"' . $method . '","params":' . $params . '}';
    }

    private static function json(mixed $value, string $what): string
    {
        $flags = JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION;
        try {
            return json_encode($value, $flags, self::DEPTH);
        } catch (\JsonException $reason) {
            $code = match ($reason->getCode()) {
                JSON_ERROR_UTF8 => ['not_utf8', 'is not UTF-8 text'],
                JSON_ERROR_DEPTH => ['too_deep', sprintf('is nested more than %d deep', self::DEPTH)],
                JSON_ERROR_INF_OR_NAN => ['not_json', 'has a number that JSON has not (INF or NAN)'],
                default => ['not_json', 'is not JSON: ' . $reason->getMessage()],
            };
            throw new InvalidCall($code[0], "$what $code[1].", $reason);
        } catch (\Throwable $reason) {
            // A JsonSerializable of the site's own may throw anything.
            throw new InvalidCall('not_json', "$what cannot be encoded: {$reason->getMessage()}.", $reason);
        }
    }
}
