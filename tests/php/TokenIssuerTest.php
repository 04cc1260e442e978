<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\Client;
use PushServer\Exception\InvalidCall;
use PushServer\TokenIssuer;

final class TokenIssuerTest extends TestCase
{
    private const OLD = 'an-older-key-of-some-length-0001';
    private const NEW = 'the-newest-key-of-some-length-02';

    private static function issuer(): TokenIssuer
    {
        return new TokenIssuer([self::OLD, self::NEW], static fn (): float => 1_800_000_000.9);
    }

    private static function claims(string $token): array
    {
        [$payload, $signature] = explode('.', $token);
        $derived = hash_hmac('sha256', 'push.connect.v1', self::NEW, true);
        $expected = rtrim(strtr(base64_encode(hash_hmac('sha256', $payload, $derived, true)), '+/', '-_'), '=');
        self::assertSame($expected, $signature);
        return json_decode(base64_decode(strtr($payload, '-_', '+/')), true, 8, JSON_THROW_ON_ERROR);
    }

    public function testATokenSaysWhoMayDoWhat(): void
    {
        $name = 'Žofie 🌻 </script>';
        $token = self::issuer()->issue('42', 'raw-session', ['node:*', 'a/b'], ['chat:lobby'], 600, $name, 't-1');
        self::assertMatchesRegularExpression('/\A[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}\z/', $token);
        self::assertSame([
            'v' => 1,
            'sub' => '42',
            'sid' => hash_hmac('sha256', 'push-session:raw-session', self::NEW),
            'iat' => 1_800_000_000,
            'exp' => 1_800_000_600,
            'sub_ch' => ['node:*', 'a/b'],
            'pub_ch' => ['chat:lobby'],
            'name' => $name,
            'jti' => 't-1',
        ], self::claims($token));
    }

    public function testTheSessionItselfIsNowhere(): void
    {
        $token = self::issuer()->issue('42', 'raw-session');
        self::assertStringNotContainsString('raw-session', base64_decode(explode('.', $token)[0]));
        self::assertSame('', self::claims(self::issuer()->issue('0', ''))['sid']);
    }

    public function testASessionIsRevokedUnderEveryKey(): void
    {
        $hashes = self::issuer()->hashesOfSession('raw-session');
        self::assertCount(2, array_unique($hashes));
        self::assertSame(self::issuer()->hashSession('raw-session'), $hashes[1]);
        self::assertSame((new TokenIssuer([self::OLD]))->hashSession('raw-session'), $hashes[0]);
    }

    public static function wrong(): iterable
    {
        yield 'no user' => ['user_malformed', ['']];
        yield 'a user who is no channel' => ['user_malformed', ['a b']];
        yield 'a long user' => ['user_malformed', [str_repeat('a', 124)]];
        yield 'a forbidden channel' => ['channel_malformed', ['42', 's', ['node 7']]];
        yield 'an internal channel' => ['channel_malformed', ['42', 's', ['$sys.*']]];
        yield 'a star inside' => ['channel_malformed', ['42', 's', ['a*b']]];
        yield 'two stars' => ['channel_malformed', ['42', 's', [], ['a**']]];
        yield 'no text' => ['channel_malformed', ['42', 's', [7]]];
        yield 'no lifetime' => ['lifetime', ['42', 's', [], [], 0]];
        yield 'more than a week' => ['lifetime', ['42', 's', [], [], 604_801]];
        yield 'a name in Latin-1' => ['not_utf8', ['42', 's', [], [], 60, "M\xfcller"]];
        yield 'too many channels' => ['token_too_large', ['42', 's', array_fill(0, 60, str_repeat('c', 60))]];
    }

    /**
     * @dataProvider wrong
     */
    public function testWhatCannotBeIssued(string $reason, array $arguments): void
    {
        $lines = [];
        $log = static function (string $level, string $message) use (&$lines): void {
            $lines[] = $message;
        };
        $site = new Setting();
        $client = Client::create(['spool' => "$site->directory/spool"] + Setting::VALUES, $log, null, false);
        self::assertNull($client->token($arguments[0], $arguments[1] ?? 's', ...array_slice($arguments, 2)));
        self::assertNull($client->token($arguments[0], $arguments[1] ?? 's', ...array_slice($arguments, 2)));
        self::assertCount(1, $lines);
        try {
            self::issuer()->issue($arguments[0], $arguments[1] ?? 's', ...array_slice($arguments, 2));
            self::fail('This was issued.');
        } catch (InvalidCall $failure) {
            self::assertSame($reason, $failure->reason);
        }
    }
}
