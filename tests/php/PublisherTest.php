<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\Exception\InvalidCall;
use PushServer\Exception\Unreachable;

final class PublisherTest extends TestCase
{
    public function testOneRequestSendsOneBatch(): void
    {
        $site = new Setting();
        $publisher = $site->publisher();
        $ids = [
            $publisher->publish('news', 1),
            $publisher->publish('news', 2, 'mine'),
            $publisher->broadcast(['a', 'b'], 3),
        ];
        self::assertTrue($publisher->revoke(sid: 's'));
        self::assertSame([], $site->calls, 'nothing before the response');
        self::assertTrue($publisher->flush());
        self::assertSame([['s', ...$ids]], $site->sent());
        self::assertSame('mine', $ids[1]);
        self::assertCount(3, array_unique($ids));
        self::assertTrue($publisher->flush());
        self::assertCount(1, $site->calls);
    }

    public function testALongImportSendsOnTheWay(): void
    {
        $site = new Setting();
        $publisher = $site->publisher();
        foreach (range(1, 450) as $n) {
            $publisher->publish('news', $n);
        }
        self::assertSame([200, 200], array_map('count', $site->sent()));
    }

    public static function wrong(): iterable
    {
        yield ['channel_malformed', ['no channel', 1]];
        yield ['not_utf8', ['news', "\xff"]];
        yield ['too_large', ['news', str_repeat('x', 2000)]];
        yield ['id_malformed', ['news', 1, '']];
    }

    /**
     * @dataProvider wrong
     */
    public function testAWrongArgumentIsNamedOnceAnHour(string $reason, array $arguments): void
    {
        $site = new Setting(null, ['max_body' => 1024]);
        $publisher = $site->publisher();
        foreach (range(1, 3) as $page) {
            self::assertNull($publisher->publish(...$arguments));
        }
        self::assertTrue($publisher->flush());
        self::assertSame([], $site->calls);
        self::assertCount(1, $site->lines);
        self::assertStringStartsWith('error: Not published: ', $site->lines[0]);

        $strict = (new Setting(null, ['max_body' => 1024, 'strict' => true]))->publisher();
        try {
            $strict->publish(...$arguments);
            self::fail('This was taken.');
        } catch (InvalidCall $failure) {
            self::assertSame($reason, $failure->reason);
        }
    }

    public function testAStrictOneThrowsWhatWentWrongAndKeepsItAllTheSame(): void
    {
        $site = new Setting(static fn () => Setting::refused(), ['strict' => true]);
        $publisher = $site->publisher();
        $publisher->publish('news', 1);
        try {
            $publisher->flush();
            self::fail('This was sent.');
        } catch (Unreachable $failure) {
            self::assertSame('unreachable', $failure->reason);
        }
        self::assertFalse($site->spool->isEmpty());
    }

    public function testALogThatFailsBreaksNothing(): void
    {
        $site = new Setting(static fn () => Setting::refused());
        $client = \PushServer\Client::create(
            ['spool' => "$site->directory/spool", 'api' => 'http://127.0.0.1:1'] + Setting::VALUES,
            static fn () => throw new \RuntimeException('disk full'),
            null,
            false
        );
        self::assertNotNull($client->publish('news', 1));
        self::assertNull($client->publish('no channel', 1));
        self::assertFalse($client->flush());
    }
}
