<?php

declare(strict_types=1);

namespace PushServer\Http;

use PushServer\Exception\NoAnswer;
use PushServer\Exception\Unreachable;

/**
 * Calls with ext-curl. One handle, so that a second call finds the connection open.
 */
final class CurlTransport implements Transport
{
    private const NOT_CONNECTED = [
        CURLE_URL_MALFORMAT,
        CURLE_COULDNT_RESOLVE_HOST,
        CURLE_COULDNT_CONNECT,
        CURLE_SSL_CONNECT_ERROR,
        CURLE_SSL_CACERT,
    ];

    private const HOPS = [
        CURLE_COULDNT_RESOLVE_HOST => 'names',
        CURLE_SSL_CONNECT_ERROR => 'tls',
        CURLE_SSL_CACERT => 'tls',
    ];

    private ?\CurlHandle $handle = null;

    public function __construct(private readonly string $server, private readonly float $connectTimeout)
    {
    }

    public function post(string $path, array $headers, string $body, float $seconds): Answer
    {
        return $this->call($path, $headers, $body, $seconds);
    }

    public function get(string $path, array $headers, float $seconds, bool $begun = false): Answer
    {
        return $this->call($path, $headers, null, $seconds, $begun);
    }

    /**
     * @param array<string, string> $headers
     */
    private function call(
        string $path,
        array $headers,
        ?string $body,
        float $seconds,
        bool $begun = false
    ): Answer {
        $this->handle ??= curl_init() ?: throw new Unreachable('curl', 'curl cannot be used.');
        $unix = str_starts_with($this->server, 'unix:') ? substr($this->server, strlen('unix:')) : null;
        $lines = ['Expect:'];
        foreach ($headers as $name => $value) {
            $lines[] = "$name: $value";
        }
        $head = $content = '';
        curl_reset($this->handle);
        curl_setopt_array($this->handle, [
            CURLOPT_URL => ($unix === null ? $this->server : 'http://localhost') . $path,
            CURLOPT_HTTPHEADER => $lines,
            CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_1,
            CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
            CURLOPT_FOLLOWLOCATION => false,
            // A proxy of the environment is meant for the outside world, not for this.
            CURLOPT_PROXY => '',
            CURLOPT_NOSIGNAL => true,
            CURLOPT_CONNECTTIMEOUT_MS => (int) ceil(1000 * min($this->connectTimeout, $seconds)),
            CURLOPT_TIMEOUT_MS => max(1, (int) ceil(1000 * $seconds)),
            CURLOPT_HEADERFUNCTION => static function (\CurlHandle $handle, string $line) use (&$head): int {
                // A new head replaces one that only promised it (100 Continue).
                $head = str_starts_with($line, 'HTTP/') ? $line : $head . $line;
                return strlen($head) <= self::ANSWER_LIMIT ? strlen($line) : 0;
            },
            CURLOPT_WRITEFUNCTION => static function ($handle, string $piece) use (&$content, $begun): int {
                $content .= $piece;
                return $begun || strlen($content) > self::ANSWER_LIMIT ? 0 : strlen($piece);
            },
        ]);
        if ($body !== null) {
            curl_setopt_array($this->handle, [CURLOPT_POST => true, CURLOPT_POSTFIELDS => $body]);
        }
        if ($unix !== null) {
            curl_setopt($this->handle, CURLOPT_UNIX_SOCKET_PATH, $unix);
        }
        $done = curl_exec($this->handle);
        if ($done === false && !($begun && $content !== '')) {
            $this->fail(curl_errno($this->handle), curl_error($this->handle));
        }
        return Answer::parse(trim($head), $content)
            ?? throw new NoAnswer('answer_malformed', 'What answered does not speak HTTP.');
    }

    private function fail(int $code, string $reason): never
    {
        assert($this->handle !== null);
        $connected = curl_getinfo($this->handle, CURLINFO_CONNECT_TIME) > 0;
        if (in_array($code, self::NOT_CONNECTED, true) || ($code === CURLE_OPERATION_TIMEOUTED && !$connected)) {
            throw new Unreachable('unreachable', "No connection: $reason.", self::HOPS[$code] ?? 'port');
        }
        // The connection is in an unknown state.
        $this->handle = null;
        if ($code === CURLE_OPERATION_TIMEOUTED) {
            throw new NoAnswer('timeout', "No answer in time: $reason.");
        }
        throw new NoAnswer('no_answer', "The connection broke: $reason.");
    }
}
