<?php

declare(strict_types=1);

namespace PushServer\Store;

use PushServer\Command;
use PushServer\Exception\SpoolException;

/**
 * A spool in a directory: a file per flush, a line per command.
 *
 * A file appears under its name when it is complete, and its name is its place: revocations ("0")
 * before publications ("1"), then the time at which the first command was made. A process that
 * dies between sending and removing leaves the file; sending it again publishes nothing twice,
 * because every publication has its id.
 */
final class DirectorySpool implements Spool
{
    /** Files of a long outage; beyond that, the oldest publications go. */
    private const FILES_LIMIT = 20_000;

    private int $count = 0;

    /** @var resource|null */
    private $lock = null;

    public function __construct(private readonly string $directory)
    {
    }

    /**
     * Make sure that files can be written here, and that nobody else can read them.
     *
     * @throws SpoolException
     */
    public function prepare(): void
    {
        if (!@is_dir($this->directory) && !@mkdir($this->directory, 0700, true) && !@is_dir($this->directory)) {
            throw new SpoolException("The directory $this->directory (setting spool) cannot be made.");
        }
        if (!is_writable($this->directory)) {
            throw new SpoolException("PHP may not write into $this->directory (setting spool).");
        }
    }

    public function put(array $commands): void
    {
        $this->prepare();
        foreach ([true, false] as $revocations) {
            $chosen = array_values(array_filter(
                $commands,
                static fn (Command $command): bool => $command->isRevocation === $revocations
            ));
            if ($chosen) {
                $this->write($chosen, $revocations);
            }
        }
    }

    public function isEmpty(): bool
    {
        // What a cron job of another system user has left is for that one to send.
        return $this->take(1, 1) === [];
    }

    public function lock(): bool
    {
        $path = "$this->directory/lock";
        // One that another system user made is not in the way: the directory is ours.
        $file = @fopen($path, 'c') ?: (@unlink($path) ? @fopen($path, 'c') : false);
        if ($file === false || !flock($file, LOCK_EX | LOCK_NB)) {
            return false;
        }
        $this->lock = $file;
        return true;
    }

    public function unlock(): void
    {
        if ($this->lock !== null) {
            fclose($this->lock);
            $this->lock = null;
        }
    }

    public function take(int $commands, int $bytes): array
    {
        $taken = [];
        foreach ($this->files() as $name) {
            $content = @file_get_contents("$this->directory/$name");
            if ($content === false) {
                // To take it as empty would be to remove it unsent.
                continue;
            }
            $found = self::decode($content, $name[0] === '0');
            $commands -= count($found);
            $bytes -= strlen($content);
            if ($taken && ($commands < 0 || $bytes < 0)) {
                break;
            }
            $taken[$name] = $found;
        }
        return $taken;
    }

    public function remove(array $keys): void
    {
        foreach ($keys as $name) {
            @unlink("$this->directory/$name");
        }
    }

    public function expire(float $before): int
    {
        $publications = array_filter($this->files(), static fn (string $name): bool => $name[0] === '1');
        $surplus = count($publications) - self::FILES_LIMIT;
        $dropped = [];
        foreach ($publications as $name) {
            if ((int) substr($name, 2, 20) >= $before * 1e6 && count($dropped) >= $surplus) {
                break;
            }
            $dropped[] = $name;
        }
        $this->remove($dropped);
        return count($dropped);
    }

    /**
     * @return list<string>
     */
    private function files(): array
    {
        $names = @is_dir($this->directory) ? (scandir($this->directory) ?: []) : [];
        return array_values(preg_grep('/\A[01]-[0-9]{20}-.*\.jsonl\z/', $names) ?: []);
    }

    /**
     * @param non-empty-list<Command> $commands
     */
    private function write(array $commands, bool $revocations): void
    {
        $name = sprintf(
            '%d-%020d-%06d-%s.jsonl',
            $revocations ? 0 : 1,
            (int) round($commands[0]->madeAt * 1e6),
            ++$this->count,
            bin2hex(random_bytes(4))
        );
        $lines = array_map(
            static fn (Command $command): string => sprintf("%.6F\t%s\n", $command->madeAt, $command->json),
            $commands
        );
        $content = implode('', $lines);
        $unfinished = "$this->directory/new-$name";
        $file = @fopen($unfinished, 'x');
        // 0600 before there is anything to read.
        $complete = $file !== false
            && chmod($unfinished, 0600)
            && @fwrite($file, $content) === strlen($content)
            && fflush($file)
            // A revocation survives a power cut; for a notification the page need not wait.
            && (!$revocations || @fsync($file));
        if ($file !== false) {
            fclose($file);
        }
        if (!$complete || !@rename($unfinished, "$this->directory/$name")) {
            @unlink($unfinished);
            throw new SpoolException("A file cannot be written in $this->directory (setting spool).");
        }
    }

    /**
     * @return list<Command>
     */
    private static function decode(string $content, bool $revocations): array
    {
        $commands = [];
        foreach (explode("\n", $content) as $line) {
            [$madeAt, $json] = explode("\t", $line, 2) + [1 => ''];
            // What is half a line after a power cut must not spoil the batch it would be sent in.
            if (is_numeric($madeAt) && is_array(json_decode($json, true, 64))) {
                $commands[] = new Command($json, $revocations, (float) $madeAt);
            }
        }
        return $commands;
    }
}
