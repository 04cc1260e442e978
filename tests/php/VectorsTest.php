<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\Channel;
use PushServer\Config;
use PushServer\Exception\ConfigException;
use PushServer\Exception\InvalidCall;
use PushServer\RequestSigner;
use PushServer\TokenSigner;

/**
 * The files in tests/vectors, on which Python and PHP agree.
 */
final class VectorsTest extends TestCase
{
    private static function load(string $name): array
    {
        $json = file_get_contents(__DIR__ . "/../vectors/$name.json");
        return json_decode($json, true, 64, JSON_THROW_ON_ERROR);
    }

    public static function tokens(): iterable
    {
        foreach (self::load('tokens')['signing'] as $case) {
            yield $case['name'] => [$case];
        }
    }

    /**
     * @dataProvider tokens
     */
    public function testATokenIsSignedAsTheFormulaSays(array $case): void
    {
        self::assertSame($case['token'], (new TokenSigner($case['key']))->sign($case['json']));
    }

    public static function signatures(): iterable
    {
        foreach (self::load('signatures')['cases'] as $case) {
            if ($case['valid'] && isset($case['body'])) {
                yield $case['name'] => [$case];
            }
        }
    }

    /**
     * @dataProvider signatures
     */
    public function testARequestIsSignedAsTheFormulaSays(array $case): void
    {
        $keys = Config::fromArray(['api_key' => $case['secrets']] + Setting::VALUES)->apiKeys;
        $ours = (new RequestSigner($keys))->sign($case['id'], (int) $case['timestamp'], $case['body']);
        self::assertCount(count($keys), explode(' ', $ours));
        self::assertNotEmpty(array_intersect(explode(' ', $ours), explode(' ', $case['signature'])));
    }

    public function testChannelNames(): void
    {
        $cases = self::load('channels');
        foreach ($cases['names'] as $name) {
            self::assertSame($name, Channel::check($name));
            self::assertTrue(Channel::isNameOrPattern($name), $name);
        }
        foreach ([...$cases['malformed'], ...$cases['wildcards'], "a\xff", "\xed\xa0\x80"] as $name) {
            self::assertFalse(Channel::isName($name), json_encode($name) ?: 'not UTF-8');
            try {
                Channel::check($name);
                self::fail("$name is no channel");
            } catch (InvalidCall $refused) {
                self::assertSame('channel_malformed', $refused->reason);
                self::assertMatchesRegularExpression('/\A[\x20-\x7e]{1,500}\z/', $refused->getMessage());
            }
        }
        foreach ($cases['patterns'] as $pattern) {
            self::assertTrue(Channel::isNameOrPattern($pattern), $pattern);
        }
        foreach ($cases['not_patterns'] as $pattern) {
            self::assertFalse(Channel::isNameOrPattern($pattern), $pattern);
        }
    }
}
