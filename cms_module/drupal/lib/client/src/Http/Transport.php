<?php

declare(strict_types=1);

namespace PushServer\Http;

use PushServer\Exception\CallFailed;
use PushServer\Exception\NoAnswer;
use PushServer\Exception\Unreachable;

/**
 * Calls one server. A call ends in time, whatever that server does.
 */
interface Transport
{
    /** Bytes read of an answer: that of a full batch fits, an endless one does not. */
    public const ANSWER_LIMIT = 4 * 1024 * 1024;

    /**
     * @param array<string, string> $headers
     * @param float $seconds for everything, from connecting to the last byte
     * @throws Unreachable|NoAnswer|CallFailed
     */
    public function post(string $path, array $headers, string $body, float $seconds): Answer;

    /**
     * @param array<string, string> $headers
     * @param float $seconds for everything, from connecting to the last byte
     * @param bool $begun whether the first bytes of a body are enough, as of a stream that does not end
     * @throws Unreachable|NoAnswer|CallFailed
     */
    public function get(string $path, array $headers, float $seconds, bool $begun = false): Answer;
}
