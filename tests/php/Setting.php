<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PushServer\Api;
use PushServer\Breaker;
use PushServer\Command;
use PushServer\Config;
use PushServer\Courier;
use PushServer\Exception\NoAnswer;
use PushServer\Exception\PushException;
use PushServer\Exception\Unreachable;
use PushServer\Http\Answer;
use PushServer\Http\Transport;
use PushServer\Journal;
use PushServer\Publisher;
use PushServer\RequestSigner;
use PushServer\Store\DirectorySpool;
use PushServer\Store\FileFlags;
use PushServer\Store\Spool;

/**
 * A site on which the push server is a function: the courier and what is around it, with a clock
 * that the test sets and a log that it reads.
 */
final class Setting implements Transport
{
    public const TOKEN_KEY = 'a-token-key-of-sufficient-length';
    public const API_KEY = 'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';
    public const VALUES = [
        'url' => 'http://push.example.com',
        'api' => 'http://127.0.0.1:6667',
        'token_key' => self::TOKEN_KEY,
        'api_key' => self::API_KEY,
    ];

    public readonly string $directory;
    /** @var list<array{string, array<string, string>, string}> path, headers and body of each call */
    public array $calls = [];
    /** @var list<string> */
    public array $lines = [];
    public float $now = 1_800_000_000.0;
    public Spool $spool;
    public readonly Config $config;

    /**
     * @param \Closure(list<array<string, mixed>>): (Answer|PushException)|null $server answers all commands if null
     * @param array<string, mixed> $values
     */
    public function __construct(public ?\Closure $server = null, array $values = [])
    {
        $this->directory = sys_get_temp_dir() . '/push-test-' . bin2hex(random_bytes(6));
        mkdir($this->directory, 0700);
        $this->spool = new DirectorySpool("$this->directory/spool");
        $this->config = Config::fromArray($values + self::VALUES);
    }

    public function __destruct()
    {
        foreach ([...glob("$this->directory/spool/*") ?: [], ...glob("$this->directory/*") ?: []] as $path) {
            is_dir($path) ? rmdir($path) : unlink($path);
        }
        rmdir($this->directory);
    }

    public function post(string $path, array $headers, string $body, float $seconds): Answer
    {
        $this->calls[] = [$path, $headers, $body];
        $commands = json_decode($body, true, 64, JSON_THROW_ON_ERROR);
        $answer = $this->server ? ($this->server)($commands) : self::accept($commands);
        return $answer instanceof \Throwable ? throw $answer : $answer;
    }

    public function get(string $path, array $headers, float $seconds, bool $begun = false): Answer
    {
        return $this->post($path, $headers, '[]', $seconds);
    }

    /**
     * @param list<array<string, mixed>> $commands
     */
    public static function accept(array $commands): Answer
    {
        return self::answer(array_fill(0, count($commands), ['result' => ['offset' => 1]]));
    }

    public static function answer(mixed $value, int $status = 200): Answer
    {
        return new Answer($status, [], json_encode($value, JSON_THROW_ON_ERROR));
    }

    public static function error(string $code): array
    {
        return ['error' => ['code' => $code, 'message' => "No: $code."]];
    }

    public static function refused(): Unreachable
    {
        return new Unreachable('unreachable', 'No connection: refused.');
    }

    public static function hung(): NoAnswer
    {
        return new NoAnswer('timeout', 'No answer in time: 300 ms.');
    }

    /**
     * A courier in another process of the same site.
     */
    public function courier(bool $spooling = true): Courier
    {
        $clock = fn (): float => $this->now;
        $api = new Api($this, new RequestSigner($this->config->apiKeys), 'test', $clock);
        $flags = new FileFlags($this->directory);
        return new Courier(
            $api,
            $spooling ? $this->spool : null,
            new Breaker($flags),
            $this->journal(),
            $this->config,
            $clock
        );
    }

    public function publisher(): Publisher
    {
        return new Publisher($this->courier(), $this->journal(), $this->config, fn (): float => $this->now, false);
    }

    public function command(string $id, string $channel = 'news'): Command
    {
        return Command::publish($channel, ['n' => $id], $id, null, $this->now += 0.001);
    }

    public function revocation(string $sid): Command
    {
        return Command::revoke($sid, null, null, null, $this->now += 0.001);
    }

    /**
     * The pause of the breaker is over.
     */
    public function endPause(): void
    {
        (new FileFlags($this->directory))->lower('pause');
    }

    /**
     * The ids (of sessions, for revocations) of what was sent, call by call.
     *
     * @return list<list<string>>
     */
    public function sent(): array
    {
        return array_map(static fn (array $call): array => array_map(
            static fn (array $command): string => $command['params']['id'] ?? $command['params']['sid'],
            json_decode($call[2], true)
        ), $this->calls);
    }

    private function journal(): Journal
    {
        return new Journal(function (string $level, string $message): void {
            $this->lines[] = "$level: $message";
        }, new FileFlags($this->directory));
    }
}
