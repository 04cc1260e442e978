<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\CallFailed;
use PushServer\Exception\NoAnswer;
use PushServer\Exception\Unreachable;
use PushServer\Http\Answer;
use PushServer\Http\Transport;

/**
 * The way that browsers take to the push server, as far as it can be seen from the host of the CMS.
 *
 * A CMS may be unable to reach its own public addresses while browsers can; so what is in the way
 * before anything has answered is a warning and no error.
 *
 * @internal
 */
final class PublicWay
{
    private const HOPS = ['names', 'port', 'tls'];
    private const BEHIND = [
        'push_host', 'agent_cluster', 'frame', 'token_key', 'forwarded', 'streaming', 'api_private', 'versions',
    ];
    /** An address that nobody has (RFC 5737), for a forged X-Forwarded-For. */
    private const CLAIM = '192.0.2.77';

    /**
     * @param string|null $site host of the pages, and the port if it is unusual; null if it is not known here
     */
    public function __construct(
        private readonly Transport $push,
        private readonly TokenIssuer $issuer,
        private readonly Config $config,
        private readonly Checklist $checks,
        private readonly ?string $site,
        private readonly float $patience
    ) {
    }

    public function run(): void
    {
        try {
            $frame = $this->push->get('/frame', [], $this->patience);
        } catch (CallFailed $failure) {
            $this->noteEnd($failure);
            return;
        }
        $this->noteReached();
        if (!preg_match('/data-document-domain="([^"]*)" data-version="([^"]*)"/', $frame->body, $said)) {
            $this->checks->error('push_host', $this->stranger($frame));
            $this->checks->skipped('First push_host.', ...array_slice(self::BEHIND, 1));
            return;
        }
        $this->checks->ok('push_host', "The push server answers at {$this->config->url}.");
        $this->attempt('agent_cluster', fn () => $this->checkAgentCluster($frame, $said[1]));
        $this->attempt('frame', fn () => $this->checkFrame($frame));
        $this->attempt('token_key', fn () => $this->checkTokenKey());
        $this->attempt('forwarded', fn () => $this->checkForwarded());
        $this->attempt('streaming', fn () => $this->checkStreaming());
        $this->attempt('api_private', fn () => $this->checkPrivacy());
        $this->checkVersions($said[2]);
    }

    /**
     * @param \Closure(): void $check
     */
    private function attempt(string $name, \Closure $check): void
    {
        try {
            $check();
        } catch (CallFailed $failure) {
            $this->checks->error($name, "{$this->config->url} broke off: {$failure->getMessage()}");
        }
    }

    private function noteReached(): void
    {
        $this->checks->ok('names', "{$this->host()} has an address.");
        $this->checks->ok('port', "{$this->config->url} takes connections.");
        if ($this->isSecure()) {
            $this->checks->ok('tls', 'The certificate is good.');
        } else {
            $this->checks->skipped('Plain http: everybody on the way can read what is pushed.', 'tls');
        }
    }

    private function noteEnd(CallFailed $failure): void
    {
        $hop = $failure instanceof Unreachable ? $failure->hop : 'push_host';
        $end = array_search($hop, self::HOPS, true);
        foreach (self::HOPS as $number => $name) {
            if ($end === false || $number < $end) {
                $this->checks->ok($name, 'Passed.');
            } elseif ($number > $end) {
                $this->checks->skipped("First $hop.", $name);
            }
        }
        $this->checks->skipped("First $hop.", ...self::BEHIND);
        $this->checks->warning($hop, sprintf(
            '%s = %s cannot be reached from this host: %s Browsers may still reach it.',
            ($this->config->spell)('url'),
            $this->config->url,
            $failure->getMessage()
        ));
    }

    private function stranger(Answer $answer): string
    {
        $error = Api::error($answer->json());
        $location = $answer->headers['location'] ?? '';
        $what = "What answers at {$this->config->url}, with status $answer->status,";
        return match (true) {
            $error !== null && $error[0] === 'host_unknown' =>
                "The push server is asked for another host: its proxy must pass Host on, public_url must be"
                . " {$this->config->url}.",
            $error !== null => "The push server answers: $error[1]",
            in_array($answer->status, [502, 503, 504], true) =>
                "$what is a proxy that does not reach the push server. Does it run?",
            $location !== '' => "$what sends browsers to $location. Is that where the push server is?",
            default => "$what is no push server. Is it the site?",
        };
    }

    private function checkAgentCluster(Answer $frame, string $domain): void
    {
        if ($domain === '') {
            $this->checks->skipped('Pages use postMessage.', 'agent_cluster');
            return;
        }
        $missing = $this->push->get('/push-doctor-looks-for-an-error-page', [], $this->patience);
        foreach (['page' => $frame, 'error page' => $missing] as $kind => $answer) {
            $told = $answer->headers['origin-agent-cluster'] ?? 'missing';
            if ($told !== '?0') {
                $message = "On the push host's $kind Origin-Agent-Cluster is $told; it must be ?0, once, on every"
                    . ' answer. Until then pages use postMessage.';
                $this->checks->error('agent_cluster', $message);
                return;
            }
        }
        $this->checks->ok('agent_cluster', "Every answer of the push host allows document.domain = $domain.");
    }

    private function checkFrame(Answer $frame): void
    {
        $options = $frame->headers['x-frame-options'] ?? '';
        $policy = $frame->headers['content-security-policy'] ?? '';
        $allowed = preg_match('/frame-ancestors ([^;,]*)/', $policy, $match) ? explode(' ', trim($match[1])) : null;
        if ($options !== '') {
            $this->checks->error('frame', "The proxy of the push host adds X-Frame-Options: $options; take it out.");
        } elseif ($allowed === null || in_array($this->site, preg_replace('~\Ahttps?://~', '', $allowed), true)) {
            $this->checks->ok('frame', 'Pages of this site may embed the iframe.');
        } elseif ($this->site === null) {
            $this->checks->ok('frame', 'Pages of ' . implode(', ', $allowed) . ' may embed the iframe.');
        } else {
            $this->checks->error('frame', sprintf(
                'Pages of %s may not connect: it must be one of site_origins of the push server, which are %s.',
                $this->site,
                implode(', ', $allowed)
            ));
        }
    }

    private function checkTokenKey(): void
    {
        $answer = $this->push->post('/ticket', $this->bearer(), '', $this->patience);
        $error = Api::error($answer->json());
        if ($answer->status === 200 && isset($answer->json()['ticket'])) {
            $this->checks->ok('token_key', 'The push server takes our tokens.');
        } elseif ($error !== null && $error[0] === 'token_invalid') {
            $message = 'The push server does not take our tokens: ' . ($this->config->spell)('token_key')
                . ' must be one of its token_keys, and the clocks must agree within 60 seconds.';
            $this->checks->error('token_key', $message);
        } else {
            $message = $error[1] ?? "status $answer->status";
            $this->checks->error('token_key', "The push server answers: $message");
        }
    }

    private function checkForwarded(): void
    {
        $forged = ['X-Forwarded-For' => self::CLAIM] + $this->bearer();
        $honest = $this->push->get('/echo', $this->bearer(), $this->patience)->json()['address'] ?? null;
        $seen = $this->push->get('/echo', $forged, $this->patience)->json()['address'] ?? null;
        if (!is_string($seen) || !is_string($honest)) {
            $this->checks->skipped('First token_key.', 'forwarded');
        } elseif ($seen === self::CLAIM && !$this->isHere()) {
            $message = 'The push server believes an address that visitors write into X-Forwarded-For; its proxy must'
                . ' overwrite the header; nginx: proxy_set_header X-Forwarded-For $remote_addr;';
            $this->checks->error('forwarded', $message);
        } elseif (($honest === 'unix' || str_starts_with($honest, '127.') || $honest === '::1') && !$this->isHere()) {
            $message = "The push server sees every visitor as $honest: set trusted_proxy = \"$honest\" there, and have"
                . ' the proxy send X-Forwarded-For.';
            $this->checks->error('forwarded', $message);
        } else {
            $this->checks->ok('forwarded', "The push server sees this host as $honest, and no address we make up.");
        }
    }

    private function checkStreaming(): void
    {
        // As browsers do: whether a proxy compresses a stream is a part of what is looked for.
        $headers = ['Accept-Encoding' => 'gzip'] + $this->bearer();
        $poll = $this->push->get('/subscribe/poll', $headers, $this->patience);
        if ($poll->status !== 200) {
            $this->checks->skipped('First token_key.', 'streaming');
            return;
        }
        try {
            $stream = $this->push->get('/subscribe/stream', $headers, $this->patience, true);
        } catch (NoAnswer) {
            $message = 'The answer is held back on the way: a poll was answered, and nothing came of a stream. The'
                . ' proxy of the push host must not buffer; nginx: proxy_buffering off;';
            $this->checks->error('streaming', $message);
            return;
        }
        $coding = $stream->headers['content-encoding'] ?? '';
        if ($coding === '') {
            $this->checks->ok('streaming', 'The first line of a stream comes at once.');
        } else {
            $message = "The proxy of the push host compresses streams ($coding) and so holds them back; nginx:"
                . ' gzip off;';
            $this->checks->error('streaming', $message);
        }
    }

    private function checkPrivacy(): void
    {
        $answer = $this->push->get('/live', [], $this->patience);
        if (($answer->json()['live'] ?? null) === true) {
            $message = "The internal API answers at {$this->config->url}, for everybody: the proxy of the push host"
                . ' must not lead to internal_listen.';
            $this->checks->error('api_private', $message);
        } else {
            $this->checks->ok('api_private', 'The internal API cannot be reached on the way that browsers take.');
        }
    }

    private function checkVersions(string $server): void
    {
        // Before 1.0, MINOR may break anything.
        $ours = implode('.', array_slice(explode('.', Api::VERSION), 0, 2));
        if (str_starts_with("$server.", "$ours.")) {
            $this->checks->ok('versions', "The push server is $server, this client " . Api::VERSION . '.');
        } else {
            $message = "The push server is $server, this client " . Api::VERSION . '; update the older one.';
            $this->checks->warning('versions', $message);
        }
    }

    /**
     * @return array<string, string>
     */
    private function bearer(): array
    {
        $token = $this->issuer->issue('0', '', [], [], 60);
        return ['Authorization' => "Bearer $token", 'Content-Type' => 'application/json'];
    }

    private function host(): string
    {
        return (string) preg_replace('~\A\w+://|:[0-9]+\z~', '', $this->config->url);
    }

    private function isSecure(): bool
    {
        return str_starts_with($this->config->url, 'https:');
    }

    /**
     * Whether the push host has a loopback address, so that we come from one, too.
     */
    private function isHere(): bool
    {
        $host = $this->host();
        // Names under localhost are this machine for curl and browsers, whatever the resolver says (RFC 6761).
        return $host === '[::1]' || $host === 'localhost' || str_ends_with($host, '.localhost')
            || str_starts_with(gethostbyname($host), '127.');
    }
}
