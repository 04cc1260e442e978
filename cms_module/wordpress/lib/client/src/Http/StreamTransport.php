<?php

declare(strict_types=1);

namespace PushServer\Http;

use PushServer\Exception\NoAnswer;
use PushServer\Exception\Unreachable;

/**
 * Calls with PHP's own streams, where ext-curl is missing. No https.
 *
 * PHP's http:// wrapper is not used: its timeout begins anew with every byte that arrives.
 * HTTP/1.0, so that an answer comes in one piece and ends with the connection.
 */
final class StreamTransport implements Transport
{
    private const PIECE = 65_536;

    public function __construct(private readonly string $server, private readonly float $connectTimeout)
    {
    }

    public function post(string $path, array $headers, string $body, float $seconds): Answer
    {
        return $this->call("POST $path", $headers + ['Content-Length' => (string) strlen($body)], $body, $seconds);
    }

    public function get(string $path, array $headers, float $seconds, bool $begun = false): Answer
    {
        return $this->call("GET $path", $headers, '', $seconds, $begun);
    }

    /**
     * @param array<string, string> $headers
     */
    private function call(
        string $line,
        array $headers,
        string $body,
        float $seconds,
        bool $begun = false
    ): Answer {
        $deadline = hrtime(true) / 1e9 + $seconds;
        $stream = $this->connect(min($this->connectTimeout, $seconds));
        try {
            stream_set_blocking($stream, false);
            $this->write($stream, $this->head($line, $headers) . $body, $deadline);
            return $this->read($stream, $deadline, $begun);
        } finally {
            fclose($stream);
        }
    }

    /**
     * @return resource
     */
    private function connect(float $seconds)
    {
        if (str_starts_with($this->server, 'https:')) {
            throw new Unreachable('https', 'https needs the PHP extension curl.', 'tls');
        }
        $unix = str_starts_with($this->server, 'unix:');
        $host = substr($this->server, strlen($unix ? 'unix:' : 'http://'));
        if (!$unix && !preg_match('/:[0-9]+\z/', $host)) {
            $host .= ':80';
        }
        $stream = @stream_socket_client(($unix ? 'unix://' : 'tcp://') . $host, $code, $reason, $seconds);
        if ($stream === false) {
            $hop = str_contains($reason, 'getaddrinfo') ? 'names' : 'port';
            throw new Unreachable('unreachable', "No connection: $reason.", $hop);
        }
        return $stream;
    }

    /**
     * @param array<string, string> $headers
     */
    private function head(string $line, array $headers): string
    {
        $host = str_starts_with($this->server, 'unix:') ? 'localhost' : substr($this->server, strlen('http://'));
        $lines = ["$line HTTP/1.0", "Host: $host", 'Connection: close'];
        foreach ($headers as $name => $value) {
            $lines[] = "$name: $value";
        }
        return implode("\r\n", $lines) . "\r\n\r\n";
    }

    /**
     * @param resource $stream
     */
    private function write($stream, string $bytes, float $deadline): void
    {
        while ($bytes !== '') {
            $this->wait($stream, false, $deadline);
            $written = @fwrite($stream, $bytes);
            if ($written === false || $written === 0) {
                throw new NoAnswer('no_answer', 'The connection broke while the request was sent.');
            }
            $bytes = substr($bytes, $written);
        }
    }

    /**
     * @param resource $stream
     */
    private function read($stream, float $deadline, bool $begun): Answer
    {
        $bytes = '';
        while (!feof($stream) && !self::isComplete($bytes, $begun)) {
            $this->wait($stream, true, $deadline);
            $bytes .= @fread($stream, self::PIECE);
            if (strlen($bytes) > self::ANSWER_LIMIT) {
                throw new NoAnswer('answer_malformed', 'The answer does not end.');
            }
        }
        [$head, $body] = explode("\r\n\r\n", $bytes, 2) + [1 => null];
        // Without a length, the end of the connection is the end of the answer.
        if ($body === null || (!$begun && strlen($body) < (self::length($head) ?? 0))) {
            throw new NoAnswer('no_answer', 'The connection broke before the answer was there.');
        }
        return Answer::parse($head, $body)
            ?? throw new NoAnswer('answer_malformed', 'What answered does not speak HTTP.');
    }

    /**
     * Whether everything is there that the head announces, or that is wanted.
     */
    private static function isComplete(string $bytes, bool $begun): bool
    {
        $end = strpos($bytes, "\r\n\r\n");
        if ($begun && $end !== false && strlen($bytes) > $end + 4) {
            return true;
        }
        $length = $end === false ? null : self::length(substr($bytes, 0, $end));
        return $length !== null && strlen($bytes) >= $end + 4 + $length;
    }

    private static function length(string $head): ?int
    {
        return preg_match('/^Content-Length:\s*([0-9]{1,15})/mi', $head, $match) ? (int) $match[1] : null;
    }

    /**
     * @param resource $stream
     */
    private function wait($stream, bool $toRead, float $deadline): void
    {
        $left = $deadline - hrtime(true) / 1e9;
        $readable = $toRead ? [$stream] : null;
        $writable = $toRead ? null : [$stream];
        $others = null;
        if ($left <= 0 || !@stream_select($readable, $writable, $others, (int) $left, (int) (fmod($left, 1) * 1e6))) {
            throw new NoAnswer('timeout', 'No answer in time.');
        }
    }
}
