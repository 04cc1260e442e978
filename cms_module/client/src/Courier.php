<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\CallFailed;
use PushServer\Exception\PushException;
use PushServer\Exception\SpoolException;
use PushServer\Exception\Unreachable;
use PushServer\Store\Spool;

/**
 * Brings commands to the push server, now or later.
 *
 * Rules:
 *
 * - A delivery ends within `timeout`, and within microseconds while the breaker is open.
 * - What cannot be sent is put into the spool. While anything waits there, new commands go behind
 *   it, and one process at a time sends, so that the order holds.
 * - Sending twice does no harm: every publication has had its id since it was made.
 * - A command that the server refuses for good is dropped and named in the log, because keeping it
 *   would hold up all others.
 *
 * @internal
 */
final class Courier
{
    /** Commands that the API takes in one list. */
    private const COMMANDS_LIMIT = 1000;
    /** Part of the timeout that must be left to begin another batch. */
    private const ENOUGH = 1 / 3;
    /** Errors of the server that asking again will not cure. */
    private const FINAL_ERROR = '/_malformed\z|_denied\z|_too_large\z|\Aid_conflict\z|\Aparams\z|\Acommand\z/';

    /**
     * @param \Closure(): float $clock
     */
    public function __construct(
        private readonly Api $api,
        private readonly ?Spool $spool,
        private readonly Breaker $breaker,
        private readonly Journal $journal,
        private readonly Config $config,
        private readonly \Closure $clock
    ) {
    }

    /**
     * Send these commands behind what waits already; null if all of it went well.
     *
     * @param list<Command> $commands
     */
    public function deliver(array $commands): ?PushException
    {
        $waiting = $this->isWaiting();
        if (!$commands && !$waiting) {
            return null;
        }
        $commands = self::revocationsFirst($commands);
        if (!$this->breaker->allows()) {
            return $this->keep($commands) ?? new Unreachable('paused', 'The push server was away a moment ago.');
        }
        $deadline = new Deadline($this->config->timeout);
        // Where nothing can be kept, sending out of order is the lesser evil.
        if (!$waiting || $this->keep($commands) !== null) {
            return $this->sendNew($commands, $deadline);
        }
        return $this->drainUntil($deadline);
    }

    public function isWaiting(): bool
    {
        return $this->spool !== null && !$this->spool->isEmpty();
    }

    /**
     * Send what waits, for as long as this; null if all went well.
     */
    public function drain(float $seconds): ?PushException
    {
        if (!$this->isWaiting() || !$this->breaker->allows()) {
            return null;
        }
        return $this->drainUntil(new Deadline($seconds));
    }

    /**
     * Ask the server something, if it is there.
     *
     * @param string $json a command
     * @return array<string, mixed> its result
     * @throws CallFailed
     */
    public function ask(string $json): array
    {
        if (!$this->breaker->allows()) {
            throw new Unreachable('paused', 'The push server was away a moment ago.');
        }
        try {
            $answer = $this->api->call($json, $this->config->timeout);
        } catch (CallFailed $failure) {
            $this->away($failure);
            throw $failure;
        }
        $result = $answer->status === 200 ? ($answer->json()['result'] ?? null) : null;
        if (!is_array($result)) {
            throw $this->api->failure($answer);
        }
        $this->finish([], null);
        return $result;
    }

    /**
     * @param list<Command> $commands
     */
    private function sendNew(array $commands, Deadline $deadline): ?PushException
    {
        $batches = $this->batches($commands);
        $later = [];
        while ($batches && $this->isEnough($deadline)) {
            try {
                $later = [...$later, ...$this->send($batches[0], $deadline)];
            } catch (CallFailed $failure) {
                $lost = $this->keep(array_merge($later, ...$batches));
                $this->away($failure);
                return $lost ?? $failure;
            }
            array_shift($batches);
        }
        return $this->finish($later, $this->keep(array_merge($later, ...$batches)));
    }

    private function drainUntil(Deadline $deadline): ?PushException
    {
        assert($this->spool !== null);
        $failure = null;
        do {
            if (!$this->spool->lock()) {
                // Whoever has the lock looks again after letting it go, and finds what we have put.
                return null;
            }
            try {
                $failure = $this->sendWaiting($this->spool, $deadline);
            } finally {
                $this->spool->unlock();
            }
        } while (!$failure && $this->isEnough($deadline) && !$this->spool->isEmpty());
        return $failure;
    }

    private function sendWaiting(Spool $spool, Deadline $deadline): ?PushException
    {
        $this->expire($spool);
        while ($this->isEnough($deadline)) {
            $entries = $spool->take(self::COMMANDS_LIMIT, $this->config->maxBody - 2);
            if (!$entries) {
                break;
            }
            $later = [];
            try {
                foreach ($this->batches(array_merge(...array_values($entries))) as $batch) {
                    $later = [...$later, ...$this->send($batch, $deadline)];
                }
                if ($later) {
                    $spool->put($later);
                }
            } catch (CallFailed $failure) {
                $this->away($failure);
                return $failure;
            } catch (SpoolException $failure) {
                // The entries stay, and what was sent of them is sent again.
                return $failure;
            }
            $spool->remove(array_map('strval', array_keys($entries)));
            $failure = $this->finish($later, null);
            if ($failure) {
                return $failure;
            }
        }
        return null;
    }

    /**
     * Say how it went: the server answered, but it may have been unable to do some of it.
     *
     * @param list<Command> $later
     */
    private function finish(array $later, ?PushException $lost): ?PushException
    {
        if ($later) {
            $failure = new Unreachable('not_now', 'The push server answers, but it cannot publish at the moment.');
            $this->away($failure);
            return $lost ?? $failure;
        }
        if ($this->breaker->close()) {
            $this->journal->write('info', 'The push server is back.', ['url' => $this->config->api]);
        }
        return $lost;
    }

    /**
     * Send one batch and return what has to be sent again.
     *
     * @param non-empty-list<Command> $commands
     * @return list<Command>
     * @throws CallFailed
     */
    private function send(array $commands, Deadline $deadline): array
    {
        $json = array_map(static fn (Command $command): string => $command->json, $commands);
        $answer = $this->api->call('[' . implode(',', $json) . ']', min($this->config->timeout, $deadline->left()));
        $results = $answer->json();
        if (
            $answer->status === 200
            && is_array($results)
            && array_is_list($results)
            && count($results) === count($commands)
        ) {
            return $this->unsent($commands, $results);
        }
        $failure = $this->api->failure($answer);
        $isTooLarge = $answer->status === 413;
        if (!$isTooLarge && ($answer->status !== 400 || Api::error($results) === null)) {
            throw $failure;
        }
        if (count($commands) === 1) {
            $hint = $isTooLarge ? ' Make PUSH_MAX_BODY what max_body of the push server is.' : '';
            $this->refused($isTooLarge ? 'too_large' : $failure->reason, $failure->getMessage() . $hint);
            return [];
        }
        // One of them spoils the whole list. Find it, so that the others arrive.
        $half = intdiv(count($commands), 2);
        return [
            ...$this->send(array_slice($commands, 0, $half), $deadline),
            ...$this->send(array_slice($commands, $half), $deadline),
        ];
    }

    /**
     * @param list<Command> $commands
     * @param list<mixed> $results
     * @return list<Command>
     */
    private function unsent(array $commands, array $results): array
    {
        $later = [];
        foreach ($results as $index => $result) {
            // A broadcast has a result for each channel.
            $parts = $result['result']['results'] ?? null;
            foreach (array_filter(array_map(Api::error(...), is_array($parts) ? $parts : [$result])) as $error) {
                if (!preg_match(self::FINAL_ERROR, $error[0])) {
                    $later[] = $commands[$index];
                    break;
                }
                $this->refused($error[0], $error[1]);
            }
        }
        return $later;
    }

    private function refused(string $code, string $message): void
    {
        $this->journal->once("refused-$code", "The push server refused a command ($code): $message");
    }

    private function away(CallFailed $failure): void
    {
        if ($this->breaker->open()) {
            $what = $this->spool === null ? 'is lost' : 'waits and is sent later';
            $message = "The push server is away. {$failure->getMessage()} The site goes on; what it publishes $what.";
            $context = ['url' => $this->config->api, 'code' => $failure->reason];
            $this->journal->write('error', $message, $context);
        }
        if ($this->spool !== null) {
            $this->expire($this->spool);
        }
    }

    private function expire(Spool $spool): void
    {
        if ($spool->expire(($this->clock)() - $this->config->spoolSeconds)) {
            $message = 'Publications waited longer than PUSH_SPOOL_SECONDS and were dropped.';
            $this->journal->once('expired', $message);
        }
    }

    /**
     * @param list<Command> $commands
     * @return SpoolException|null why they are lost
     */
    private function keep(array $commands): ?SpoolException
    {
        if (!$commands) {
            return null;
        }
        try {
            if ($this->spool === null) {
                throw new SpoolException('There is no spool (setting spool).');
            }
            foreach ($this->batches($commands) as $batch) {
                $this->spool->put($batch);
            }
            return null;
        } catch (SpoolException $failure) {
            $this->journal->once('spool', "What cannot be sent now is lost: {$failure->getMessage()}");
            return $failure;
        }
    }

    /**
     * @param list<Command> $commands
     * @return list<non-empty-list<Command>> each as much as one request takes
     */
    private function batches(array $commands): array
    {
        $batches = [];
        $room = 0;
        foreach ($commands as $command) {
            $size = strlen($command->json) + 1;
            if (!$batches || $size > $room || count($batches[array_key_last($batches)]) >= self::COMMANDS_LIMIT) {
                $batches[] = [];
                $room = $this->config->maxBody - 1;
            }
            $batches[array_key_last($batches)][] = $command;
            $room -= $size;
        }
        return $batches;
    }

    /**
     * @param list<Command> $commands
     * @return list<Command>
     */
    private static function revocationsFirst(array $commands): array
    {
        // PHP's sort is stable.
        usort($commands, static fn (Command $a, Command $b): int => $b->isRevocation <=> $a->isRevocation);
        return $commands;
    }

    private function isEnough(Deadline $deadline): bool
    {
        return $deadline->left() > $this->config->timeout * self::ENOUGH;
    }
}
