<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\CallFailed;
use PushServer\Exception\ConfigException;
use PushServer\Exception\InvalidCall;
use PushServer\Exception\PushException;
use PushServer\Exception\Unreachable;
use PushServer\Http\CurlTransport;
use PushServer\Http\StreamTransport;
use PushServer\Http\Transport;
use PushServer\Store\ApcuFlags;
use PushServer\Store\DirectorySpool;
use PushServer\Store\FileFlags;
use PushServer\Store\Flags;
use PushServer\Store\OwnFlags;
use PushServer\Store\Spool;

/**
 * A push server, as a PHP site sees it. This is the class to use; it puts the others together.
 *
 *     $push = PushServer\Client::create();
 *     $token = $push->token($userId, session_id(), ['node:*']);
 *     $push->publish('node:7', ['title' => $title]);
 *
 * It cannot hurt the site: nothing is thrown, and no page waits longer than `timeout`, once per
 * outage. With the setting `strict`, for tests and command lines, errors are thrown.
 */
final class Client
{
    /**
     * Functions that send the response to the visitor and let PHP go on, where there is one.
     *
     * @internal
     */
    public const FINISHERS = ['fastcgi_finish_request', 'litespeed_finish_request'];

    private function __construct(
        private readonly ?ConfigException $problem,
        private readonly ?string $url,
        private readonly ?TokenIssuer $issuer,
        private readonly ?Publisher $publisher,
        private readonly ?Courier $courier,
        private readonly ?ConnectionTest $test,
        private readonly Journal $journal,
        private readonly bool $strict
    ) {
    }

    /**
     * A client with the settings in an array or, without one, in constants or the environment.
     *
     * Settings that are missing or wrong are named in the log; then every call does nothing, and
     * testConnection() says why.
     *
     * @param array<string, mixed>|null $settings
     * @param callable(string, string, array<string, mixed>): mixed|null $log level, message, context: for
     *     instance $logger->log(...) of a PSR-3 logger; PHP's error log if it is null
     * @param bool $afterResponse false if the CMS calls flush() by itself
     * @throws ConfigException if strict
     */
    public static function create(
        #[\SensitiveParameter] ?array $settings = null,
        ?callable $log = null,
        ?Spool $spool = null,
        bool $afterResponse = true
    ): self {
        $log = $log === null ? Journal::toErrorLog() : \Closure::fromCallable($log);
        try {
            $config = $settings === null ? Config::fromEnvironment() : Config::fromArray($settings);
        } catch (ConfigException $problem) {
            if (self::isStrict($settings)) {
                throw $problem;
            }
            $journal = new Journal($log, self::flags(self::defaultDirectory('settings'), 'settings'));
            $topic = md5(__DIR__ . $problem->getMessage());
            $journal->once($topic, "Nothing is pushed: {$problem->getMessage()}");
            return new self($problem, null, null, null, null, null, $journal, false);
        }
        return self::assemble($config, $log, $spool, $afterResponse);
    }

    /**
     * The push server as browsers see it; null if nothing is pushed because of a wrong setting.
     */
    public function url(): ?string
    {
        return $this->url;
    }

    /**
     * A token with which a page of this user listens; see TokenIssuer::issue().
     *
     * @param list<string> $subscribe
     * @param list<string> $publish
     * @return string|null null if it cannot be issued; the page then works without push
     * @throws PushException if strict
     */
    public function token(
        string $user,
        #[\SensitiveParameter] string $sessionId,
        array $subscribe = [],
        array $publish = [],
        int $lifetime = 3600,
        ?string $name = null,
        ?string $jti = null
    ): ?string {
        // Every page of a logged-in user helps to send what waits.
        $this->publisher?->schedule();
        try {
            return $this->issuer?->issue($user, $sessionId, $subscribe, $publish, $lifetime, $name, $jti);
        } catch (InvalidCall $failure) {
            if ($this->strict) {
                throw $failure;
            }
            $this->journal->once("invalid-$failure->reason", "No token: {$failure->getMessage()}");
            return null;
        }
    }

    /**
     * Publish after the response; see Publisher::publish().
     *
     * @throws PushException if strict
     */
    public function publish(string $channel, mixed $data, ?string $id = null, ?string $exclude = null): ?string
    {
        return $this->publisher?->publish($channel, $data, $id, $exclude);
    }

    /**
     * Publish to many channels after the response; see Publisher::broadcast().
     *
     * @param list<string> $channels
     * @throws PushException if strict
     */
    public function broadcast(array $channels, mixed $data, ?string $id = null, ?string $exclude = null): ?string
    {
        return $this->publisher?->broadcast($channels, $data, $id, $exclude);
    }

    /**
     * End a session, all sessions of a user, or one token; see Publisher::revoke().
     *
     * @param string|null $sessionId as it was given to token()
     * @throws PushException if strict
     */
    public function revoke(
        #[\SensitiveParameter] ?string $sessionId = null,
        ?string $user = null,
        ?string $jti = null,
        ?int $before = null
    ): bool {
        if ($this->issuer === null || $this->publisher === null) {
            return false;
        }
        // The token may have been issued before the keys were rotated.
        $sids = $sessionId === null ? [null] : $this->issuer->hashesOfSession($sessionId);
        $taken = true;
        foreach ($sids as $index => $sid) {
            $taken = ($index === 0
                ? $this->publisher->revoke($sid, $user, $jti, $before)
                : $this->publisher->revoke($sid)) && $taken;
        }
        return $taken;
    }

    /**
     * Who is in a channel now; its namespace needs `presence` on the push server.
     *
     * The one call that waits for an answer: `timeout` at most, and not at all during an outage.
     *
     * @return array<int|string, string|null>|null names by user id, null where the token had no name; null
     *     instead of the array if nobody can tell at the moment
     * @throws PushException if strict
     */
    public function presence(string $channel): ?array
    {
        if ($this->courier === null) {
            return null;
        }
        try {
            $result = $this->courier->ask(Command::presence($channel));
        } catch (CallFailed | InvalidCall $failure) {
            if ($this->strict) {
                throw $failure;
            }
            if (!$failure instanceof Unreachable) {
                $this->journal->once("presence-$failure->reason", "No presence: {$failure->getMessage()}");
            }
            return null;
        }
        $users = $result['users'] ?? null;
        $name = static fn (mixed $user): ?string => is_string($user['name'] ?? null) ? $user['name'] : null;
        return is_array($users) ? array_map($name, $users) : null;
    }

    /**
     * Send now; see Publisher::flush().
     *
     * @throws PushException if strict
     */
    public function flush(): bool
    {
        return $this->publisher?->flush() ?? false;
    }

    /**
     * Send what waits; for cron, with all the time that is left.
     *
     * @throws PushException if strict
     */
    public function drain(float $seconds = 10.0): bool
    {
        return $this->publisher?->drain($seconds) ?? false;
    }

    /**
     * What is between the CMS and its push server, by name. Never throws; takes seconds at worst.
     *
     * The names are those of `push-server doctor`, where it has the same check.
     *
     * @param string|null $site the host of the site's pages; by default that of this request
     * @return array<string, Check> in the order of the way; of wrong settings, only settings
     */
    public function testConnection(?string $site = null): array
    {
        if ($this->problem !== null) {
            return ['settings' => new Check('settings', CheckStatus::Error, $this->problem->getMessage())];
        }
        return $this->test?->run($site ?? $_SERVER['HTTP_HOST'] ?? null) ?? [];
    }

    /**
     * @param array<string, mixed>|null $settings
     */
    private static function isStrict(#[\SensitiveParameter] ?array $settings): bool
    {
        $environment = defined('PUSH_STRICT') ? constant('PUSH_STRICT') : getenv('PUSH_STRICT');
        return filter_var($settings === null ? $environment : $settings['strict'] ?? false, FILTER_VALIDATE_BOOL);
    }

    private static function assemble(Config $config, \Closure $log, ?Spool $spool, bool $afterResponse): self
    {
        $clock = static fn (): float => microtime(true);
        $where = substr(hash('sha256', $config->api), 0, 12);
        $directory = match ($config->spool) {
            null => self::defaultDirectory($where),
            '' => null,
            default => $config->spool,
        };
        $flags = self::flags($directory, substr(hash('sha256', "$config->api $directory"), 0, 12));
        $journal = new Journal($log, $flags);
        $signer = new RequestSigner($config->apiKeys);
        $transport = self::transport($config->api, $config->connectTimeout);
        $api = new Api($transport, $signer, $config->name, $clock, $config->spell);
        $spool ??= $directory === null ? null : new DirectorySpool($directory);
        $courier = new Courier($api, $spool, new Breaker($flags), $journal, $config, $clock);
        $issuer = new TokenIssuer($config->tokenKeys);
        $push = self::transport($config->url, ConnectionTest::PATIENCE);
        return new self(
            null,
            $config->url,
            $issuer,
            new Publisher($courier, $journal, $config, $clock, $afterResponse),
            $courier,
            new ConnectionTest($api, $push, $issuer, $config, $spool, $clock),
            $journal,
            $config->strict
        );
    }

    private static function transport(string $server, float $connectTimeout): Transport
    {
        return extension_loaded('curl')
            ? new CurlTransport($server, $connectTimeout)
            : new StreamTransport($server, $connectTimeout);
    }

    private static function flags(?string $directory, string $prefix): Flags
    {
        if (function_exists('apcu_enabled') && apcu_enabled()) {
            return new ApcuFlags("push:$prefix:");
        }
        // Where PHP may not even look (open_basedir), asking is a warning.
        $isThere = $directory !== null && (@is_dir($directory) || @mkdir($directory, 0700, true));
        return $isThere && is_writable($directory) ? new FileFlags($directory) : new OwnFlags();
    }

    /**
     * A directory of this system user alone, for a site that sets none; null if somebody else made it.
     */
    private static function defaultDirectory(string $name): ?string
    {
        $user = function_exists('posix_geteuid') ? posix_geteuid() : null;
        $directory = sprintf('%s/push-spool-%s-%s', sys_get_temp_dir(), $user ?? get_current_user(), $name);
        if (!@is_dir($directory) && !@mkdir($directory, 0700) && !@is_dir($directory)) {
            return null;
        }
        $isOurs = !is_link($directory)
            && (fileperms($directory) & 0077) === 0
            && ($user === null || fileowner($directory) === $user);
        return $isOurs ? $directory : null;
    }
}
