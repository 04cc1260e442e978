<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\InvalidCall;
use PushServer\Exception\PushException;

/**
 * Collects what one request publishes and revokes, and has it sent as one batch after the response.
 *
 * Nothing is thrown unless `strict`: a wrong argument makes a call return null, and is named in
 * the log once an hour.
 *
 * A command line program that runs for long calls flush() whenever something should go out.
 */
final class Publisher
{
    /** Commands after which a long import sends what it has. */
    private const FULL = 200;

    /** @var list<Command> */
    private array $commands = [];
    private bool $isScheduled = false;
    private float $last = 0.0;

    /**
     * @param bool $afterResponse whether to flush by itself when the request ends
     * @param \Closure(): float $clock
     */
    public function __construct(
        private readonly Courier $courier,
        private readonly Journal $journal,
        private readonly Config $config,
        private readonly \Closure $clock,
        private readonly bool $afterResponse = true
    ) {
    }

    /**
     * Publish anything that is JSON to a channel.
     *
     * @param string|null $id publishing again with the same id, within 24 hours, publishes nothing twice
     * @param string|null $exclude the page instance that must not get it back
     * @return string|null the id of the publication; null if the arguments cannot be sent
     * @throws PushException if strict
     */
    public function publish(string $channel, mixed $data, ?string $id = null, ?string $exclude = null): ?string
    {
        $id ??= self::freshId();
        $command = fn (): Command => Command::publish($channel, $data, $id, $exclude, $this->now());
        return $this->collect($command, "channel $channel") ? $id : null;
    }

    /**
     * Publish the same to many channels, as one publication in each.
     *
     * @param list<string> $channels
     * @return string|null as publish()
     * @throws PushException if strict
     */
    public function broadcast(array $channels, mixed $data, ?string $id = null, ?string $exclude = null): ?string
    {
        $id ??= self::freshId();
        $command = fn (): Command => Command::broadcast($channels, $data, $id, $exclude, $this->now());
        return $this->collect($command, 'many channels') ? $id : null;
    }

    /**
     * Close connections and refuse their tokens: of a session, of a user, or of one token.
     *
     * A revocation is sent before everything else, and waits for the push server as long as it takes.
     *
     * @param string|null $sid the hash of a session id, as the tokens have it
     * @param int|null $before with $user: tokens issued at or before this second, now by default
     * @return bool whether the arguments can be sent
     * @throws PushException if strict
     */
    public function revoke(
        ?string $sid = null,
        ?string $user = null,
        ?string $jti = null,
        ?int $before = null
    ): bool {
        return $this->collect(
            fn (): Command => Command::revoke($sid, $user, $jti, $before, $this->now()),
            'a revocation'
        );
    }

    /**
     * Send now what was collected, and what waits. Ends in time.
     *
     * @return bool whether the push server has all of it; else the rest is sent later
     * @throws PushException if strict
     */
    public function flush(): bool
    {
        $commands = $this->commands;
        $this->commands = [];
        return $this->outcome($this->courier->deliver($commands));
    }

    /**
     * Send what waits, for as long as this. For cron.
     *
     * @throws PushException if strict
     */
    public function drain(float $seconds): bool
    {
        return $this->outcome($this->courier->drain($seconds));
    }

    /**
     * Make sure that flush() is called after the response, for what is collected and what waits.
     */
    public function schedule(): void
    {
        if ($this->afterResponse && !$this->isScheduled) {
            $this->isScheduled = true;
            // Registered twice, so that it runs after every function that others register.
            register_shutdown_function(fn () => register_shutdown_function($this->finish(...)));
        }
    }

    private function outcome(?PushException $failure): bool
    {
        if ($failure && $this->config->strict) {
            throw $failure;
        }
        return $failure === null;
    }

    /**
     * @param \Closure(): Command $make
     */
    private function collect(\Closure $make, string $what): bool
    {
        try {
            $command = $make();
            $size = strlen($command->json) + 2;
            if ($size > $this->config->maxBody) {
                throw new InvalidCall('too_large', sprintf(
                    'The data for %s are too large: %d bytes, and PUSH_MAX_BODY (max_body of the push server) is %d.',
                    $what,
                    $size,
                    $this->config->maxBody
                ));
            }
        } catch (InvalidCall $failure) {
            if ($this->config->strict) {
                throw $failure;
            }
            $this->journal->once("invalid-$failure->reason", "Not published: {$failure->getMessage()}");
            return false;
        }
        $this->commands[] = $command;
        if (count($this->commands) >= self::FULL) {
            $this->flush();
        }
        $this->schedule();
        return true;
    }

    /**
     * Let the visitor go, then send.
     */
    private function finish(): void
    {
        $this->isScheduled = false;
        if (!$this->commands && !$this->courier->isWaiting()) {
            return;
        }
        // Else the next request of this visitor would wait for the session, if PHP has any.
        if (function_exists('session_status') && session_status() === PHP_SESSION_ACTIVE) {
            session_write_close();
        }
        foreach (Client::FINISHERS as $finisher) {
            if (function_exists($finisher)) {
                $finisher();
                break;
            }
        }
        $this->flush();
    }

    /**
     * The time, never the same twice: it is what keeps the order of what waits.
     */
    private function now(): float
    {
        return $this->last = max(($this->clock)(), $this->last + 1e-6);
    }

    private static function freshId(): string
    {
        return bin2hex(random_bytes(16));
    }
}
