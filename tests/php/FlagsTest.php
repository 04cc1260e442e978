<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\Breaker;
use PushServer\Store\ApcuFlags;
use PushServer\Store\FileFlags;
use PushServer\Store\Flags;
use PushServer\Store\OwnFlags;

/**
 * One suite for every kind of flags; two objects stand for two processes where flags are shared.
 */
final class FlagsTest extends TestCase
{
    private string $directory;

    protected function setUp(): void
    {
        $this->directory = sys_get_temp_dir() . '/push-test-' . bin2hex(random_bytes(6));
        mkdir($this->directory);
    }

    protected function tearDown(): void
    {
        array_map('unlink', glob("$this->directory/*") ?: []);
        rmdir($this->directory);
    }

    public static function kinds(): iterable
    {
        $own = new OwnFlags();
        yield 'own' => [static fn (string $directory): Flags => $own];
        yield 'files' => [static fn (string $directory): Flags => new FileFlags($directory)];
        if (function_exists('apcu_enabled') && apcu_enabled()) {
            yield 'apcu' => [static fn (string $directory): Flags => new ApcuFlags("test:$directory:")];
        }
    }

    /**
     * @dataProvider kinds
     */
    public function testAFlagIsRaisedAndLoweredByOneProcessOnly(\Closure $make): void
    {
        [$one, $other] = [$make($this->directory), $make($this->directory)];
        self::assertFalse($one->isUp('away'));
        self::assertTrue($one->raise('away', 60));
        self::assertFalse($other->raise('away', 60));
        self::assertTrue($other->isUp('away'));
        self::assertFalse($other->isUp('pause'));
        self::assertTrue($other->lower('away'));
        self::assertFalse($one->lower('away'));
        self::assertTrue($one->raise('away', 60));
    }

    /**
     * @dataProvider kinds
     */
    public function testTheBreakerLetsOneTryAfterThePause(\Closure $make): void
    {
        [$one, $other] = [new Breaker($make($this->directory)), new Breaker($make($this->directory))];
        self::assertTrue($one->allows());
        self::assertTrue($one->allows(), 'while all is well, everybody may');
        self::assertTrue($one->open(), 'this is news');
        self::assertFalse($other->open(), 'this is not');
        self::assertFalse($other->allows());
        $make($this->directory)->lower('pause');
        self::assertTrue($other->allows(), 'one tries');
        self::assertFalse($one->allows(), 'and all others wait');
        self::assertTrue($other->close());
        self::assertFalse($one->close());
        self::assertTrue($one->allows());
    }

    public function testAFlagOfFilesEnds(): void
    {
        $flags = new FileFlags($this->directory);
        self::assertTrue($flags->raise('pause', 60));
        file_put_contents("$this->directory/flag-pause", (string) (microtime(true) - 1));
        self::assertFalse($flags->isUp('pause'));
        self::assertTrue($flags->raise('pause', 60));
        self::assertFalse($flags->raise('pause', 60));
    }

    public function testAClockThatIsSetBackStopsNobody(): void
    {
        $breaker = new Breaker(new FileFlags($this->directory));
        $breaker->open();
        self::assertFalse($breaker->allows());
        // As if the pause had begun when the clock was an hour ahead.
        file_put_contents("$this->directory/flag-pause", (string) (microtime(true) + 3600));
        self::assertTrue($breaker->allows());
        self::assertFalse($breaker->allows(), 'the pause is as long as any other');
    }

    public function testAFlagOfAnotherUserIsReplaced(): void
    {
        $flags = new FileFlags($this->directory);
        // A link to nowhere stands for what only another user can open.
        symlink('/nowhere/at/all', "$this->directory/flag-pause");
        self::assertTrue($flags->raise('pause', 60));
        self::assertFalse($flags->raise('pause', 60));
    }

    public function testWhereNothingCanBeWrittenEverybodyMayTry(): void
    {
        $breaker = new Breaker(new FileFlags("$this->directory/missing"));
        $breaker->open();
        self::assertTrue($breaker->allows());
    }
}
