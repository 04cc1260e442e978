<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\Breaker;
use PushServer\Command;
use PushServer\Exception\CallFailed;
use PushServer\Exception\NoAnswer;
use PushServer\Exception\Refused;
use PushServer\Exception\Unreachable;
use PushServer\Http\Answer;
use PushServer\RequestSigner;
use PushServer\Store\FileFlags;

final class CourierTest extends TestCase
{
    public function testOneSignedRequestForAll(): void
    {
        $site = new Setting();
        $commands = [$site->command('a'), $site->command('b'), $site->revocation('r'), $site->command('c')];
        self::assertNull($site->courier()->deliver($commands));
        self::assertSame([['r', 'a', 'b', 'c']], $site->sent());
        [$path, $headers, $body] = $site->calls[0];
        self::assertSame('/api', $path);
        self::assertSame('application/json', $headers['Content-Type']);
        self::assertMatchesRegularExpression('/\A[A-Za-z0-9_-]{1,64}\z/', $headers['webhook-id']);
        self::assertSame((string) (int) $site->now, $headers['webhook-timestamp']);
        $signer = new RequestSigner($site->config->apiKeys);
        $expected = $signer->sign($headers['webhook-id'], (int) $site->now, $body);
        self::assertSame($expected, $headers['webhook-signature']);
        self::assertTrue($site->spool->isEmpty());
        self::assertSame([], $site->lines);
    }

    public function testNothingToDoIsNothing(): void
    {
        $site = new Setting();
        self::assertNull($site->courier()->deliver([]));
        self::assertSame([], $site->calls);
    }

    public function testAnOutageIsOneLineAndEverythingArrivesOnceInOrder(): void
    {
        $site = new Setting(static fn () => Setting::refused());
        self::assertInstanceOf(Unreachable::class, $site->courier()->deliver([$site->command('a')]));
        foreach (['b', 'c', 'd'] as $id) {
            $failure = $site->courier()->deliver([$site->command($id), $site->revocation("r$id")]);
            self::assertInstanceOf(Unreachable::class, $failure);
            self::assertSame('paused', $failure->reason);
        }
        self::assertCount(1, $site->calls, 'nobody tries during the pause');
        $site->endPause();
        self::assertInstanceOf(Unreachable::class, $site->courier()->deliver([$site->command('e')]));
        self::assertCount(2, $site->calls, 'one tries after it');
        self::assertCount(1, $site->lines);
        self::assertStringContainsString('error: The push server is away. No connection: refused.', $site->lines[0]);

        $site->server = null;
        $site->calls = [];
        $site->endPause();
        self::assertNull($site->courier()->deliver([$site->command('f'), $site->revocation('rf')]));
        self::assertSame([['rb', 'rc', 'rd', 'rf', 'a', 'b', 'c', 'd', 'e', 'f']], $site->sent());
        self::assertTrue($site->spool->isEmpty());
        self::assertNull($site->courier()->deliver([$site->command('g')]));
        self::assertSame(['info: The push server is back.'], array_slice($site->lines, 1));
        self::assertSame([['g']], array_slice($site->sent(), 1));
    }

    public function testARetryKeepsItsIdsAndSignsAnew(): void
    {
        $site = new Setting(static fn () => Setting::hung());
        self::assertInstanceOf(NoAnswer::class, $site->courier()->deliver([$site->command('a'), $site->command('b')]));
        $site->endPause();
        $site->now += 400;
        self::assertInstanceOf(NoAnswer::class, $site->courier()->deliver([]));
        [[, $first, $sent], [, $again, $resent]] = $site->calls;
        self::assertSame($sent, $resent);
        self::assertSame($first['webhook-id'], $again['webhook-id']);
        self::assertNotSame($first['webhook-timestamp'], $again['webhook-timestamp']);
        self::assertNotSame($first['webhook-signature'], $again['webhook-signature']);
    }

    public function testPublicationsExpireAndRevocationsDoNot(): void
    {
        $site = new Setting(static fn () => Setting::refused(), ['spool_seconds' => 600]);
        $site->courier()->deliver([$site->command('old'), $site->revocation('r')]);
        $site->now += 601;
        $site->endPause();
        $site->courier()->deliver([$site->command('new')]);
        $site->now += 30 * 86_400;
        $site->courier()->deliver([$site->command('newest')]);
        $site->server = null;
        $site->calls = [];
        $site->endPause();
        self::assertNull($site->courier()->drain(1.0));
        self::assertSame([['r', 'newest']], $site->sent());
        self::assertCount(1, preg_grep('/PUSH_SPOOL_SECONDS/', $site->lines));
    }

    public function testWhatTheServerCannotDoNowIsSentLater(): void
    {
        $site = new Setting(static fn (array $commands): Answer => Setting::answer(array_map(
            static fn (array $command): array => $command['params']['id'] === 'b'
                ? Setting::error('broker_unavailable')
                : ['result' => []],
            $commands
        )));
        $commands = [$site->command('a'), $site->command('b'), $site->command('c')];
        $failure = $site->courier()->deliver($commands);
        self::assertSame('not_now', $failure->reason);
        $site->endPause();
        self::assertSame('not_now', $site->courier()->drain(1.0)->reason);
        $site->server = null;
        $site->endPause();
        self::assertNull($site->courier()->drain(1.0));
        self::assertSame([['a', 'b', 'c'], ['b'], ['b']], $site->sent());
        self::assertTrue($site->spool->isEmpty());
    }

    public function testAPartOfABroadcastIsEnoughToSendItAgain(): void
    {
        $site = new Setting(static fn (array $commands): Answer => Setting::answer([
            ['result' => ['results' => [['offset' => 1], Setting::error('storage_error')]]],
        ]));
        $site->courier()->deliver([$site->command('a')]);
        self::assertFalse($site->spool->isEmpty());
    }

    public function testWhatIsRefusedForGoodIsNamedOnceAndDropped(): void
    {
        $site = new Setting(static fn (array $commands): Answer => Setting::answer(array_map(
            static fn (array $command): array => Setting::error('channel_denied'),
            $commands
        )));
        foreach (range(1, 3) as $page) {
            self::assertNull($site->courier()->deliver([$site->command('a'), $site->command('b')]));
        }
        self::assertTrue($site->spool->isEmpty());
        $line = 'error: The push server refused a command (channel_denied): No: channel_denied.';
        self::assertSame([$line], $site->lines);
    }

    public static function spoilers(): iterable
    {
        yield 'one it cannot read' => [Setting::answer(Setting::error('json_malformed'), 400)];
        yield 'one too large' => [Setting::answer(Setting::error('body_too_large'), 413)];
        yield 'one too large for a proxy' => [new Answer(413, [], '<html>')];
    }

    /**
     * @dataProvider spoilers
     */
    public function testOneCommandSpoilsOnlyItself(Answer $refusal): void
    {
        $arrived = [];
        $site = new Setting(static function (array $commands) use (&$arrived, $refusal): Answer {
            $ids = array_map(static fn (array $command): string => $command['params']['id'], $commands);
            if (in_array('bad', $ids, true)) {
                return $refusal;
            }
            $arrived = [...$arrived, ...$ids];
            return Setting::accept($commands);
        });
        $ids = ['a', 'b', 'c', 'bad', 'd', 'e', 'f'];
        self::assertNull($site->courier()->deliver(array_map($site->command(...), $ids)));
        self::assertSame(['a', 'b', 'c', 'd', 'e', 'f'], $arrived);
        self::assertCount(1, $site->lines);
        self::assertTrue($site->spool->isEmpty());
    }

    public static function strangers(): iterable
    {
        $date = static fn (int $time): array => ['date' => gmdate('D, d M Y H:i:s', $time) . ' GMT'];
        $refused = json_encode(Setting::error('signature_invalid'));
        yield 'another key' => [
            new Answer(401, $date(1_800_000_000), $refused),
            'PUSH_API_KEY must be one of its api_keys',
        ];
        yield 'another time' => [
            new Answer(401, $date(1_800_000_400), $refused),
            'The clocks of this host and of the push server differ by 400 seconds; 300 are allowed.',
        ];
        yield 'a page' => [new Answer(200, [], '<html>'), 'What answers at PUSH_API is no push server.'];
        yield 'a site' => [new Answer(404, [], '<html>'), 'What answers at PUSH_API, with status 404, is not'];
        yield 'a redirect' => [new Answer(302, ['location' => '/login'], ''), 'with status 302'];
        yield 'a malformed request, says a stranger' => [new Answer(400, [], 'no'), 'with status 400'];
        yield 'overload' => [Setting::answer(Setting::error('timeout'), 503), 'No: timeout.'];
        yield 'too few results' => [Setting::answer([]), 'What answers at PUSH_API is no push server.'];
        yield 'a forged line' => [Setting::answer(['error' => ['code' => 'x', 'message' => "a\nb"]], 500), 'a b'];
    }

    /**
     * @dataProvider strangers
     */
    public function testAnAnswerThatIsNoneIsAnOutageWithAReason(Answer $answer, string $reason): void
    {
        $site = new Setting(static fn () => $answer);
        foreach (range(1, 3) as $page) {
            self::assertNotNull($site->courier()->deliver([$site->command("a$page"), $site->revocation("r$page")]));
            $site->endPause();
        }
        self::assertCount(1, $site->lines);
        self::assertStringContainsString($reason, $site->lines[0]);
        $site->server = null;
        $site->calls = [];
        self::assertNull($site->courier()->drain(1.0));
        self::assertSame([['r1', 'r2', 'r3', 'a1', 'a2', 'a3']], $site->sent());
    }

    public function testALongSpoolIsSentInPiecesThatFit(): void
    {
        $site = new Setting(static fn () => Setting::refused(), ['max_body' => 1024]);
        $ids = array_map(static fn (int $n): string => sprintf('id%03d', $n), range(1, 60));
        foreach (array_chunk($ids, 20) as $chunk) {
            $site->courier()->deliver(array_map($site->command(...), $chunk));
        }
        $site->server = null;
        $site->calls = [];
        $site->endPause();
        self::assertNull($site->courier()->drain(5.0));
        self::assertSame($ids, array_merge(...$site->sent()));
        foreach ($site->calls as [, , $body]) {
            self::assertLessThanOrEqual(1024, strlen($body));
        }
        self::assertLessThan(16, count($site->calls));
    }

    public function testABatchHasAThousandCommandsAtMost(): void
    {
        $site = new Setting();
        $ids = array_map(static fn (int $n): string => "i$n", range(1, 1500));
        self::assertNull($site->courier()->deliver(array_map($site->command(...), $ids)));
        self::assertSame([1000, 500], array_map('count', $site->sent()));
    }

    public function testARequestHelpsForALimitedTimeOnly(): void
    {
        $site = new Setting(static fn () => Setting::refused(), ['max_body' => 1024]);
        $site->courier()->deliver(array_map(static fn (int $n) => $site->command("i$n"), range(1, 60)));
        $site->server = static function (array $commands): Answer {
            usleep(90_000);
            return Setting::accept($commands);
        };
        $site->calls = [];
        $site->endPause();
        $begin = hrtime(true);
        self::assertNull($site->courier()->deliver([$site->command('last')]));
        self::assertLessThan(0.35, (hrtime(true) - $begin) / 1e9);
        self::assertFalse($site->spool->isEmpty());
        self::assertGreaterThanOrEqual(2, count($site->calls));
        $site->server = null;
        self::assertNull($site->courier()->drain(5.0));
        $all = array_merge(...$site->sent());
        self::assertSame([...array_map(static fn (int $n) => "i$n", range(1, 60)), 'last'], $all);
    }

    public function testWhoeverHasTheLockSendsForTheOthers(): void
    {
        $site = new Setting(static fn () => Setting::refused());
        $site->courier()->deliver([$site->command('a')]);
        $site->endPause();
        $site->calls = [];
        $others = [];
        // While one process sends, another one publishes and finds the lock taken.
        $site->server = static function (array $commands) use ($site, &$others): Answer {
            if (!$others) {
                (new Breaker(new FileFlags($site->directory)))->close();
                $others = [$site->courier()->deliver([$site->command('b')])];
            }
            return Setting::accept($commands);
        };
        $site->lines = [];
        self::assertNull($site->courier()->deliver([]));
        self::assertSame([null], $others);
        self::assertSame([['a'], ['b']], $site->sent());
        self::assertTrue($site->spool->isEmpty());
    }

    public function testWhatIsPutAtTheLastMomentIsNotLeftBehind(): void
    {
        $site = new Setting(static fn () => Setting::refused());
        $site->courier()->deliver([$site->command('a')]);
        $site->endPause();
        $site->calls = [];
        $site->server = null;
        $spool = $site->spool;
        // Another process saw "a" wait, puts its own behind it, and does not get the lock.
        $site->spool = new LatePut($spool, static fn () => $spool->put([$site->command('b')]));
        self::assertNull($site->courier()->deliver([]));
        self::assertSame([['a'], ['b']], $site->sent());
    }

    public function testWithoutASpoolTheLossIsNamedOnce(): void
    {
        $site = new Setting(static fn () => Setting::refused());
        foreach (range(1, 3) as $page) {
            self::assertNotNull($site->courier(false)->deliver([$site->command('a')]));
        }
        self::assertCount(2, $site->lines);
        self::assertStringContainsString('What cannot be sent now is lost', $site->lines[0]);
        self::assertStringContainsString('is lost.', $site->lines[1]);
    }

    public function testAFullDiskIsNamedOnceAndNothingStops(): void
    {
        $site = new Setting(static fn () => Setting::refused());
        file_put_contents("$site->directory/spool", '');
        foreach (range(1, 3) as $page) {
            self::assertNotNull($site->courier()->deliver([$site->command('a')]));
        }
        self::assertCount(1, preg_grep('/setting spool/', $site->lines));
        $site->server = null;
        $site->endPause();
        self::assertNull($site->courier()->deliver([$site->command('b')]));
    }

    public function testAQuestionIsNotAskedInAnOutage(): void
    {
        $site = new Setting(static fn () => Setting::answer(['result' => ['users' => []]]));
        self::assertSame(['users' => []], $site->courier()->ask(Command::presence('room:1')));
        self::assertSame('{"method":"presence","params":{"channel":"room:1"}}', $site->calls[0][2]);
        $site->server = static fn () => Setting::answer(Setting::error('presence_off'), 400);
        try {
            $site->courier()->ask(Command::presence('news'));
            self::fail('nothing was thrown');
        } catch (Refused $failure) {
            self::assertSame('presence_off', $failure->reason);
        }
        $site->server = static fn () => Setting::hung();
        foreach (['timeout', 'paused', 'paused'] as $reason) {
            try {
                $site->courier()->ask(Command::presence('room:1'));
                self::fail('nothing was thrown');
            } catch (CallFailed $failure) {
                self::assertSame($reason, $failure->reason);
            }
        }
        self::assertCount(3, $site->calls);
        self::assertCount(1, $site->lines);
    }
}
