<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\ConfigException;

/**
 * The settings, checked. `push-server init` prints the first four.
 *
 * They come from an array (`api_key`), or from constants or the environment (`PUSH_API_KEY`; a
 * constant wins). Every problem is a sentence that names the setting as it was spelled.
 */
final class Config
{
    /** To add a setting: a line here, one in read(), one in docs/php.rst. */
    private const NAMES = [
        'url', 'api', 'token_key', 'api_key',
        'spool', 'spool_seconds', 'max_body', 'connect_timeout', 'timeout', 'name', 'strict',
    ];
    private const TOKEN_KEY_BYTES = 24;
    private const API_KEY_BYTES = 24;

    /**
     * @param string $url origin of the push server as browsers see it
     * @param string $api where this host reaches the API: http(s)://host:port or unix:/path
     * @param non-empty-list<string> $tokenKeys oldest first; the last one signs
     * @param non-empty-list<string> $apiKeys decoded; a request is signed with each
     * @param string|null $spool directory for what waits; "" for none, null for the default one
     * @param int $spoolSeconds after which a publication that waits is dropped
     * @param int $maxBody what the push server's own `max_body` says
     * @param \Closure(string): string $spell how the user writes the name of a setting
     */
    private function __construct(
        public readonly string $url,
        public readonly string $api,
        public readonly array $tokenKeys,
        public readonly array $apiKeys,
        public readonly ?string $spool,
        public readonly int $spoolSeconds,
        public readonly int $maxBody,
        public readonly float $connectTimeout,
        public readonly float $timeout,
        public readonly string $name,
        public readonly bool $strict,
        public readonly \Closure $spell,
    ) {
    }

    /**
     * The settings in an array, or in one part of a CMS's own settings.
     *
     * @param array<string, mixed> $values
     * @throws ConfigException
     */
    public static function fromArray(#[\SensitiveParameter] array $values): self
    {
        $reader = new SettingsReader($values, static fn (string $name): string => "'$name'");
        $reader->refuseUnknown(self::NAMES);
        return self::read($reader);
    }

    /**
     * The settings in constants PUSH_…, or in the environment.
     *
     * @throws ConfigException
     */
    public static function fromEnvironment(): self
    {
        $values = [];
        foreach (self::NAMES as $name) {
            $spelled = 'PUSH_' . strtoupper($name);
            $value = defined($spelled) ? constant($spelled) : getenv($spelled);
            if ($value !== false || defined($spelled)) {
                $values[$name] = $value;
            }
        }
        return self::read(new SettingsReader($values, static fn (string $name): string => 'PUSH_' . strtoupper($name)));
    }

    /**
     * What var_dump() and print_r() show: no secrets.
     *
     * @return array<string, mixed>
     */
    public function __debugInfo(): array
    {
        $values = get_object_vars($this);
        unset($values['spell']);
        $values['tokenKeys'] = $values['apiKeys'] = '(secret)';
        return $values;
    }

    private static function read(SettingsReader $reader): self
    {
        $tokenKeys = $reader->secrets(
            'token_key',
            static fn (string $key): string => strlen($key) < self::TOKEN_KEY_BYTES
                ? throw new \UnexpectedValueException(
                    sprintf('is too short: a token key has at least %d bytes', self::TOKEN_KEY_BYTES)
                )
                : $key
        );
        $apiKeys = $reader->secrets('api_key', self::decodeApiKey(...));
        $url = $reader->url('url', ['http', 'https'], false);
        $api = $reader->url('api', ['http', 'https', 'unix'], true);
        $timeout = $reader->number('timeout', 0.3, 0.01, 0.3);
        $config = [
            $url,
            $api,
            $tokenKeys,
            $apiKeys,
            $reader->directory('spool'),
            (int) $reader->number('spool_seconds', 3600, 1, 80_000),
            (int) $reader->number('max_body', 262_144, 1024, 1 << 30),
            $reader->number('connect_timeout', 0.1, 0.01, 0.1),
            $timeout,
            $reader->label('name', 'php'),
            $reader->flag('strict'),
            $reader->spelling(),
        ];
        $reader->finish();
        return new self(...$config);
    }

    private static function decodeApiKey(#[\SensitiveParameter] string $text): string
    {
        if (!str_starts_with($text, 'whsec_')) {
            throw new \UnexpectedValueException('is no API key: it begins with whsec_');
        }
        $encoded = substr($text, strlen('whsec_'));
        $secret = base64_decode($encoded, true);
        // One spelling for one key, as the push server demands it.
        if ($secret === false || base64_encode($secret) !== $encoded) {
            throw new \UnexpectedValueException('is no API key: what follows whsec_ is not base64');
        }
        if (strlen($secret) < self::API_KEY_BYTES) {
            throw new \UnexpectedValueException(
                sprintf('is too short: an API key has at least %d bytes', self::API_KEY_BYTES)
            );
        }
        return $secret;
    }
}
