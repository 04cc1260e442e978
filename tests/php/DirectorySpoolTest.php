<?php

declare(strict_types=1);

namespace PushServer\Tests;

use PHPUnit\Framework\TestCase;
use PushServer\Command;
use PushServer\Exception\SpoolException;
use PushServer\Store\DirectorySpool;

final class DirectorySpoolTest extends TestCase
{
    private Setting $site;

    protected function setUp(): void
    {
        $this->site = new Setting();
    }

    /**
     * @return list<string>
     */
    private function ids(int $commands = 1000, int $bytes = 1_000_000): array
    {
        return array_map(
            static fn (Command $command): string => array_values(json_decode($command->json, true)['params'])[0],
            array_merge(...array_values($this->site->spool->take($commands, $bytes)))
        );
    }

    public function testRevocationsComeFirstAndTheRestInOrder(): void
    {
        $spool = $this->site->spool;
        self::assertTrue($spool->isEmpty());
        $later = $this->site->command('x', 'late');
        $early = array_map(fn (int $n): Command => $this->site->command('x', "n$n"), range(1, 3));
        $spool->put([$early[0], $this->site->revocation('r1'), $early[1]]);
        $spool->put([$early[2], $this->site->revocation('r2')]);
        $spool->put([$later]);
        self::assertFalse($spool->isEmpty());
        self::assertSame(['r1', 'r2', 'late', 'n1', 'n2', 'n3'], $this->ids());
    }

    public function testItTakesWhatFitsAndOneAtLeast(): void
    {
        foreach (range(1, 3) as $n) {
            $this->site->spool->put([$this->site->command('x', "a$n"), $this->site->command('x', "b$n")]);
        }
        self::assertSame(['a1', 'b1'], $this->ids(1));
        self::assertSame(['a1', 'b1'], $this->ids(1000, 1));
        self::assertSame(['a1', 'b1', 'a2', 'b2'], $this->ids(5));
        $this->site->spool->remove(array_map('strval', array_keys($this->site->spool->take(1, 1))));
        self::assertSame(['a2', 'b2', 'a3', 'b3'], $this->ids());
    }

    public function testOnlyPublicationsExpire(): void
    {
        $this->site->spool->put([$this->site->command('x', 'old'), $this->site->revocation('r')]);
        $this->site->now += 100;
        $this->site->spool->put([$this->site->command('x', 'new')]);
        self::assertSame(1, $this->site->spool->expire($this->site->now - 50));
        self::assertSame(['r', 'new'], $this->ids());
    }

    public function testOneProcessSends(): void
    {
        $this->site->spool->put([$this->site->command('x')]);
        $other = new DirectorySpool("{$this->site->directory}/spool");
        self::assertTrue($this->site->spool->lock());
        self::assertFalse($other->lock());
        $this->site->spool->unlock();
        self::assertTrue($other->lock());
        $other->unlock();
    }

    public function testHalfALineSpoilsNothing(): void
    {
        $this->site->spool->put([$this->site->command('x', 'a'), $this->site->command('x', 'b')]);
        [$file] = glob("{$this->site->directory}/spool/*.jsonl");
        file_put_contents($file, substr(file_get_contents($file), 0, -20));
        file_put_contents("{$this->site->directory}/spool/1-00000000000000000001-000001-ab.jsonl", "\0\n\n12\t{\n");
        self::assertSame(['a'], $this->ids());
    }

    public function testNobodyElseCanReadIt(): void
    {
        $this->site->spool->put([$this->site->command('x')]);
        [$file] = glob("{$this->site->directory}/spool/*.jsonl");
        self::assertSame(0600, fileperms($file) & 0777);
        self::assertSame(0700, fileperms(dirname($file)) & 0777);
    }

    public function testWhatCannotBeReadStaysWhereItIs(): void
    {
        $directory = "{$this->site->directory}/spool";
        $this->site->spool->put([$this->site->command('x')]);
        [$file] = glob("$directory/*.jsonl");
        unlink($file);
        // A link to nowhere stands for what a cron job of root has written: tests of root can open that.
        symlink('/nowhere/at/all', $file);
        symlink('/nowhere/at/all', "$directory/lock");
        self::assertTrue($this->site->spool->isEmpty(), 'nothing that this process can send');
        self::assertSame([], $this->site->spool->take(1000, 1_000_000), 'and so nothing that it removes');
        self::assertTrue($this->site->spool->lock(), 'the lock is not in the way');
        $this->site->spool->unlock();
        unlink($file);
    }

    public function testADirectoryThatCannotBeMade(): void
    {
        $this->expectException(SpoolException::class);
        $this->expectExceptionMessage('setting spool');
        (new DirectorySpool('/dev/null/spool'))->put([$this->site->command('x')]);
    }
}
