<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\CallFailed;
use PushServer\Exception\Refused;
use PushServer\Exception\SpoolException;
use PushServer\Http\Answer;
use PushServer\Http\Transport;
use PushServer\Store\DirectorySpool;
use PushServer\Store\Spool;

/**
 * Goes the ways from the CMS to the push server step by step, and says where they end and why.
 *
 * @internal
 */
final class ConnectionTest
{
    /** Seconds for an answer: more than a page would give it, to tell slow from dead. */
    public const PATIENCE = 2.0;
    private const SKEW_WARNING = 30;
    /** Seconds that tokens allow. */
    private const LEEWAY = 60;

    private Checklist $checks;

    /**
     * @param Transport $push to where the browsers go
     * @param \Closure(): float $clock
     */
    public function __construct(
        private readonly Api $api,
        private readonly Transport $push,
        private readonly TokenIssuer $issuer,
        private readonly Config $config,
        private readonly ?Spool $spool,
        private readonly \Closure $clock
    ) {
        $this->checks = new Checklist();
    }

    /**
     * @param string|null $site the host of the site's pages, as browsers send it
     * @return array<string, Check>
     */
    public function run(?string $site): array
    {
        $this->checks = new Checklist();
        $this->checks->ok('settings', 'The settings are complete.');
        $way = new PublicWay($this->push, $this->issuer, $this->config, $this->checks, $site, self::PATIENCE);
        $way->run();
        $this->checkApi();
        $this->checkSpool();
        $this->checkResponse();
        return $this->checks->all();
    }

    private function checkApi(): void
    {
        $begin = hrtime(true);
        try {
            $answer = $this->api->call('{"method":"stats"}', self::PATIENCE);
        } catch (CallFailed $failure) {
            $this->checks->error('api', sprintf(
                'The push server cannot be reached at %s = %s. %s Does it run, and is this its internal_listen?',
                ($this->config->spell)('api'),
                $this->config->api,
                $failure->getMessage()
            ));
            $this->checks->skipped('First api.', 'api_key', 'clock', 'speed');
            return;
        }
        $seconds = (hrtime(true) - $begin) / 1e9;
        $failure = $answer->status === 200 && isset($answer->json()['result']) ? null : $this->api->failure($answer);
        $isApi = $failure === null || ($failure instanceof Refused && $failure->reason !== 'http_error');
        if (!$isApi) {
            $this->checks->error('api', $failure->getMessage());
            $this->checks->skipped('First api.', 'api_key');
        } else {
            $this->checks->ok('api', "The push server answers at {$this->config->api}.");
            if ($failure === null) {
                $this->checks->ok('api_key', 'The push server knows ' . ($this->config->spell)('api_key') . '.');
            } else {
                $this->checks->error('api_key', $failure->getMessage());
            }
        }
        $this->checkClock($answer);
        $this->checkSpeed($seconds);
    }

    private function checkSpeed(float $seconds): void
    {
        $limit = $this->config->timeout;
        $message = sprintf('The answer took %d ms; a page gives it %d ms.', 1e3 * $seconds, 1e3 * $limit);
        $seconds < $limit ? $this->checks->ok('speed', $message) : $this->checks->warning('speed', $message);
    }

    private function checkClock(Answer $answer): void
    {
        $skew = $answer->clockSkew(($this->clock)());
        if ($skew === null) {
            $this->checks->skipped('The answer has no Date.', 'clock');
            return;
        }
        $message = abs($skew) <= 1.5
            ? 'The clocks of this host and of the push server agree.'
            : sprintf(
                'The clock of the push server is %d seconds %s; tokens allow %d, requests %d.',
                abs($skew),
                $skew > 0 ? 'ahead' : 'behind',
                self::LEEWAY,
                Api::WINDOW
            );
        match (true) {
            abs($skew) > self::LEEWAY => $this->checks->error('clock', $message),
            abs($skew) > self::SKEW_WARNING => $this->checks->warning('clock', $message),
            default => $this->checks->ok('clock', $message),
        };
    }

    private function checkSpool(): void
    {
        if ($this->spool === null) {
            $this->checks->warning('spool', 'There is no spool: what is published while the push server is away is'
                . ' lost.');
            return;
        }
        try {
            if ($this->spool instanceof DirectorySpool) {
                $this->spool->prepare();
            }
            $this->checks->ok('spool', $this->spool->isEmpty() ? 'Nothing waits.' : 'Something waits to be sent.');
        } catch (SpoolException $failure) {
            $this->checks->error('spool', $failure->getMessage());
        }
    }

    private function checkResponse(): void
    {
        if (array_filter(Client::FINISHERS, 'function_exists') !== []) {
            $this->checks->ok('after_response', 'PHP sends after the visitor has the page.');
            return;
        }
        $this->checks->warning('after_response', sprintf(
            'This PHP (%s) cannot send after the response as PHP-FPM can: a page that publishes waits for the push'
            . ' server, %d ms at most.',
            PHP_SAPI,
            1e3 * $this->config->timeout
        ));
    }
}
