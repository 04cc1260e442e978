<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\Command;
use PushServer\Exception\InvalidCall;

final class CommandTest extends TestCase
{
    private static function publish(mixed $data): string
    {
        return Command::publish('a/b', $data, 'id', null, 1.0)->json;
    }

    public function testAPublishOnTheWire(): void
    {
        $given = ['a' => "ž\n\u{2028}", 'f' => 1.0, 'o' => (object) []];
        $command = Command::publish('a/b', $given, 'id:1', 'page-1', 1.0);
        $data = '{"a":"\u017e\n\u2028","f":1.0,"o":{}}';
        self::assertSame(
            '{"method":"publish","params":{"channel":"a/b","id":"id:1","exclude":"page-1","data":' . $data . '}}',
            $command->json
        );
        self::assertFalse($command->isRevocation);
    }

    public function testABroadcastOnTheWire(): void
    {
        self::assertSame(
            '{"method":"broadcast","params":{"channels":["a","b"],"id":"i","data":null}}',
            Command::broadcast(['x' => 'a', 'y' => 'b'], null, 'i', null, 1.0)->json
        );
    }

    public function testARevocationOnTheWire(): void
    {
        $command = Command::revoke('s', '42', null, null, 1_800_000_000.9);
        self::assertSame('{"method":"revoke","params":{"sid":"s","user":"42","before":1800000000}}', $command->json);
        self::assertTrue($command->isRevocation);
        self::assertSame('{"method":"revoke","params":{"jti":"t"}}', Command::revoke(null, null, 't', null, 1.0)->json);
        self::assertStringContainsString('"before":7', Command::revoke(null, '42', null, 7, 1.0)->json);
    }

    public function testWhatIsPublishedIsWhatWasThereAtTheCall(): void
    {
        $object = (object) ['n' => 1];
        $command = Command::publish('a', $object, 'i', null, 1.0);
        $object->n = 2;
        self::assertStringContainsString('{"n":1}', $command->json);
    }

    public static function wrong(): iterable
    {
        $nested = static function (int $levels): array {
            for ($data = []; --$levels > 0;) {
                $data = [$data];
            }
            return $data;
        };
        $throwing = new class implements \JsonSerializable {
            public function jsonSerialize(): mixed
            {
                throw new \LogicException('lazy field');
            }
        };
        yield 'not UTF-8' => ['not_utf8', "M\xfcller", 'The data for channel a/b is not UTF-8 text.'];
        yield 'not UTF-8, a key' => ['not_utf8', ["\xff" => 1], 'is not UTF-8 text.'];
        yield 'a surrogate' => ['not_utf8', "\xed\xa0\x80", 'is not UTF-8 text.'];
        yield 'too deep' => ['too_deep', $nested(30), 'is nested more than 29 deep.'];
        yield 'not a number' => ['not_json', NAN, 'INF or NAN'];
        yield 'a resource' => ['not_json', STDIN, 'is not JSON'];
        yield 'a field that throws' => ['not_json', $throwing, 'cannot be encoded: lazy field.'];
    }

    /**
     * @dataProvider wrong
     */
    public function testDataThatCannotBeSent(string $reason, mixed $data, string $sentence): void
    {
        try {
            self::publish($data);
            self::fail('This was encoded.');
        } catch (InvalidCall $failure) {
            self::assertSame($reason, $failure->reason);
            self::assertStringContainsString($sentence, $failure->getMessage());
        }
    }

    public static function wrongArguments(): iterable
    {
        yield ['channel_malformed', static fn () => Command::publish('a b', 1, 'i', null, 1.0)];
        yield ['channel_malformed', static fn () => Command::broadcast(['a', ''], 1, 'i', null, 1.0)];
        yield ['channels', static fn () => Command::broadcast([], 1, 'i', null, 1.0)];
        yield ['channels', static fn () => Command::broadcast(array_fill(0, 1001, 'a'), 1, 'i', null, 1.0)];
        yield ['id_malformed', static fn () => Command::publish('a', 1, "i\n", null, 1.0)];
        yield ['id_malformed', static fn () => Command::publish('a', 1, str_repeat('i', 65), null, 1.0)];
        yield ['exclude_malformed', static fn () => Command::publish('a', 1, 'i', 'a b', 1.0)];
        yield ['params', static fn () => Command::revoke(null, null, null, null, 1.0)];
        yield ['params', static fn () => Command::revoke('', null, null, null, 1.0)];
        yield ['params', static fn () => Command::revoke(null, str_repeat('u', 513), null, null, 1.0)];
        yield ['not_utf8', static fn () => Command::revoke(null, "\xff", null, null, 1.0)];
    }

    /**
     * @dataProvider wrongArguments
     */
    public function testArgumentsThatCannotBeSent(string $reason, \Closure $make): void
    {
        try {
            $make();
            self::fail('This was encoded.');
        } catch (InvalidCall $failure) {
            self::assertSame($reason, $failure->reason);
        }
    }
}
