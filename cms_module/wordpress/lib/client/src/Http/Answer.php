<?php

declare(strict_types=1);

namespace PushServer\Http;

/**
 * What a server answered.
 */
final class Answer
{
    /**
     * @param array<string, string> $headers by lower-case name
     */
    public function __construct(
        public readonly int $status,
        public readonly array $headers,
        public readonly string $body
    ) {
    }

    /**
     * The answer in a head (status line and headers) and a body; null if it is none.
     */
    public static function parse(string $head, string $body): ?self
    {
        $lines = explode("\n", $head);
        if (!preg_match('~\AHTTP/[0-9.]+ ([0-9]{3})~', $lines[0], $match)) {
            return null;
        }
        $headers = [];
        foreach (array_slice($lines, 1) as $line) {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $headers[strtolower(trim($name))] = trim($value);
        }
        return new self((int) $match[1], $headers, $body);
    }

    /**
     * The JSON value in the body; null if there is none.
     */
    public function json(): mixed
    {
        return json_decode($this->body, true, 64);
    }

    /**
     * Seconds by which the server's clock is ahead of ours; null if it did not say.
     */
    public function clockSkew(float $now): ?float
    {
        $date = strtotime($this->headers['date'] ?? '');
        // The header has whole seconds.
        return $date === false ? null : $date + 0.5 - $now;
    }
}
