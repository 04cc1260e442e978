<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\CheckStatus;
use PushServer\Client;
use PushServer\Config;
use PushServer\Exception\ConfigException;

final class ConfigTest extends TestCase
{
    public function testTheFourSettingsAreEnough(): void
    {
        $config = Config::fromArray(Setting::VALUES);
        self::assertSame([Setting::TOKEN_KEY], $config->tokenKeys);
        self::assertSame([implode('', array_map('chr', range(0, 31)))], $config->apiKeys);
        self::assertSame([0.1, 0.3], [$config->connectTimeout, $config->timeout]);
        self::assertNull($config->spool);
        self::assertFalse($config->strict);
    }

    public static function addresses(): iterable
    {
        yield ['http://127.0.0.1:6667', 'http://127.0.0.1:6667'];
        yield ['http://127.0.0.1:6667/', 'http://127.0.0.1:6667'];
        yield ['http://127.0.0.1:6667/api', 'http://127.0.0.1:6667'];
        yield ['http://[::1]:6667', 'http://[::1]:6667'];
        yield ['https://push.internal', 'https://push.internal'];
        yield ['unix:/run/push-server/api.sock', 'unix:/run/push-server/api.sock'];
    }

    /**
     * @dataProvider addresses
     */
    public function testAddressesOfTheApi(string $given, string $used): void
    {
        self::assertSame($used, Config::fromArray(['api' => $given] + Setting::VALUES)->api);
    }

    public static function problems(): iterable
    {
        yield 'no URL' => ['url', '', "'url' is missing; push-server init prints it."];
        yield 'URL without scheme' => [
            'url',
            'push.example.com',
            "'url' has no scheme: it begins with one of http://, https://.",
        ];
        yield 'API without scheme' => [
            'api',
            '127.0.0.1:6667',
            "'api' has no scheme: it begins with one of http://, https://, unix:/.",
        ];
        yield 'another scheme' => ['api', 'gopher://127.0.0.1:6667', "'api' has no scheme"];
        yield 'a relative socket' => ['api', 'unix:api.sock', "'api' has no scheme"];
        yield 'a path' => ['api', 'http://127.0.0.1:6667/push', "'api' is a scheme, a host and perhaps a port"];
        yield 'credentials' => ['api', 'http://a:b@127.0.0.1', "'api' is a scheme, a host and perhaps a port"];
        yield 'a line end' => ['api', "http://127.0.0.1\n", "'api' is a scheme, a host and perhaps a port"];
        yield 'no scheme, only a type' => ['api', 6667, "'api' is missing"];
        yield 'no token key' => ['token_key', '', "'token_key' is missing; push-server init prints it."];
        yield 'no token keys' => ['token_key', [], "'token_key' is missing"];
        yield 'short token key' => [
            'token_key',
            str_repeat('x', 23),
            "'token_key' is too short: a token key has at least 24 bytes.",
        ];
        yield 'one short of two' => ['token_key', [Setting::TOKEN_KEY, 'x'], "'token_key' is too short"];
        yield 'no API key' => ['api_key', null, "'api_key' is missing"];
        yield 'API key without prefix' => [
            'api_key',
            str_repeat('x', 40),
            "'api_key' is no API key: it begins with whsec_.",
        ];
        yield 'not base64' => [
            'api_key',
            'whsec_' . str_repeat('!', 40),
            "'api_key' is no API key: what follows whsec_ is not base64.",
        ];
        yield 'without padding' => [
            'api_key',
            rtrim(Setting::API_KEY, '='),
            "'api_key' is no API key: what follows whsec_ is not base64.",
        ];
        yield 'short API key' => [
            'api_key',
            'whsec_' . base64_encode(str_repeat('x', 23)),
            "'api_key' is too short: an API key has at least 24 bytes.",
        ];
        yield 'too much time' => ['timeout', 0.31, "'timeout' is a number from 0.01 to 0.3."];
        yield 'too much time to connect' => ['connect_timeout', '1', "'connect_timeout' is a number from 0.01 to 0.1."];
        yield 'no number' => ['max_body', 'much', "'max_body' is a number"];
        yield 'a relative spool' => [
            'spool',
            'spool',
            "'spool' is the absolute path of a directory, or empty for none.",
        ];
        yield 'a forged name' => ['name', "x\r\nCookie: a", "'name' is 1 to 64 printable ASCII characters."];
        yield 'perhaps strict' => ['strict', 'perhaps', "'strict' is true or false."];
        yield 'unknown' => ['tokenkey', 'x', "'tokenkey' is no setting; the nearest is 'token_key'."];
    }

    /**
     * @dataProvider problems
     */
    public function testAProblemIsASentenceThatNamesTheSetting(string $name, mixed $value, string $sentence): void
    {
        $values = [$name => $value] + Setting::VALUES;
        try {
            Config::fromArray($values);
            self::fail('This was accepted.');
        } catch (ConfigException $problem) {
            self::assertSame([$name], array_keys($problem->problems));
            self::assertStringStartsWith($sentence, $problem->getMessage());
        }
        $lines = [];
        $log = static function (string $level, string $message) use (&$lines): void {
            $lines[] = "$level: $message";
        };
        // Neither the settings page nor any other page breaks.
        foreach ([1, 2] as $page) {
            $client = Client::create($values, $log);
            self::assertNull($client->token('42', 'session'));
            self::assertNull($client->publish('news', 1));
            self::assertFalse($client->revoke(user: '42'));
            self::assertFalse($client->flush());
            $checks = $client->testConnection();
            self::assertSame(['settings'], array_keys($checks));
            self::assertSame(CheckStatus::Error, $checks['settings']->status);
            self::assertStringStartsWith($sentence, $checks['settings']->message);
        }
        self::assertLessThanOrEqual(1, count($lines), 'once an hour, and the last run may have said it');
        $this->expectException(ConfigException::class);
        Client::create($name === 'strict' ? ['strict' => true] : ['strict' => true] + $values);
    }

    public function testAllProblemsAreToldAtOnce(): void
    {
        try {
            Config::fromArray([]);
            self::fail('This was accepted.');
        } catch (ConfigException $problem) {
            self::assertEqualsCanonicalizing(['url', 'api', 'token_key', 'api_key'], array_keys($problem->problems));
        }
    }

    public function testTheEnvironmentIsReadAndAConstantWins(): void
    {
        foreach (Setting::VALUES as $name => $value) {
            putenv('PUSH_' . strtoupper($name) . "=$value");
        }
        try {
            putenv('PUSH_TOKEN_KEY=an-older-key-of-some-length  the-newest-key-of-some-length');
            $config = Config::fromEnvironment();
            self::assertSame(['an-older-key-of-some-length', 'the-newest-key-of-some-length'], $config->tokenKeys);
            define('PUSH_NAME', 'wordpress');
            putenv('PUSH_NAME=environment');
            self::assertSame('wordpress', Config::fromEnvironment()->name);
            putenv('PUSH_API_KEY=short');
            $this->expectException(ConfigException::class);
            $this->expectExceptionMessage('PUSH_API_KEY is no API key: it begins with whsec_.');
            Config::fromEnvironment();
        } finally {
            foreach ([...array_keys(Setting::VALUES), 'name'] as $name) {
                putenv('PUSH_' . strtoupper($name));
            }
        }
    }

    public function testNoSecretIsShown(): void
    {
        $config = Config::fromArray(Setting::VALUES);
        foreach ([print_r($config, true), print_r(Client::create(Setting::VALUES), true)] as $shown) {
            self::assertFalse(str_contains($shown, $config->apiKeys[0]));
            self::assertFalse(str_contains($shown, Setting::TOKEN_KEY));
        }
    }
}
