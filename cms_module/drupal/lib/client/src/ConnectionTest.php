<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\CallFailed;
use PushServer\Exception\Refused;
use PushServer\Exception\SpoolException;
use PushServer\Http\Answer;
use PushServer\Http\Transport;
use PushServer\Store\DirectorySpool;

/**
 * Goes the way from the CMS to the push server step by step, and says where it ends and why.
 *
 * @internal
 */
final class ConnectionTest
{
    /** Seconds for an answer: more than a page would give it, to tell slow from dead. */
    private const PATIENCE = 2.0;
    private const SKEW_WARNING = 30;

    /** @var array<string, Check> */
    private array $checks = [];

    /**
     * @param Transport $site to where the browsers go
     * @param string|null $directory of the spool; null if there is none
     * @param \Closure(): float $clock
     */
    public function __construct(
        private readonly Api $api,
        private readonly Transport $site,
        private readonly TokenIssuer $issuer,
        private readonly Config $config,
        private readonly ?string $directory,
        private readonly \Closure $clock
    ) {
    }

    /**
     * @return array<string, Check>
     */
    public function run(): array
    {
        $this->checks = [];
        $this->note('settings', CheckStatus::Ok, 'The settings are complete.');
        $this->checkApi();
        $this->checkTokenKey();
        $this->checkSpool();
        $this->checkResponse();
        return $this->checks;
    }

    private function checkApi(): void
    {
        $begin = hrtime(true);
        try {
            $answer = $this->api->call('{"method":"stats"}', self::PATIENCE);
        } catch (CallFailed $failure) {
            $this->note('reachable', CheckStatus::Error, sprintf(
                'The push server cannot be reached at PUSH_API = %s. %s Does it run, and is this its internal_listen?',
                $this->config->api,
                $failure->getMessage()
            ));
            foreach (['speed', 'clock', 'api_key'] as $name) {
                $this->note($name, CheckStatus::Skipped, 'Nothing answered.');
            }
            return;
        }
        $seconds = (hrtime(true) - $begin) / 1e9;
        $failure = $answer->status === 200 && isset($answer->json()['result']) ? null : $this->api->failure($answer);
        $isSigned = $failure === null || ($failure instanceof Refused && $failure->reason !== 'http_error');
        if (!$isSigned) {
            $this->note('reachable', CheckStatus::Error, $failure->getMessage());
        } else {
            $this->note('reachable', CheckStatus::Ok, "The push server answers at {$this->config->api}.");
        }
        $this->checkSpeed($seconds);
        $this->checkClock($answer);
        if ($failure === null) {
            $this->note('api_key', CheckStatus::Ok, 'The push server knows PUSH_API_KEY.');
        } else {
            $this->note('api_key', $isSigned ? CheckStatus::Error : CheckStatus::Skipped, $failure->getMessage());
        }
    }

    private function checkSpeed(float $seconds): void
    {
        $limit = $this->config->timeout;
        $message = sprintf('The answer took %d ms; a page gives it %d ms.', 1e3 * $seconds, 1e3 * $limit);
        $this->note('speed', $seconds < $limit ? CheckStatus::Ok : CheckStatus::Warning, $message);
    }

    private function checkClock(Answer $answer): void
    {
        $skew = $answer->clockSkew(($this->clock)());
        if ($skew === null) {
            $this->note('clock', CheckStatus::Skipped, 'The answer has no Date.');
            return;
        }
        $status = match (true) {
            abs($skew) > Api::WINDOW => CheckStatus::Error,
            abs($skew) > self::SKEW_WARNING => CheckStatus::Warning,
            default => CheckStatus::Ok,
        };
        $message = abs($skew) <= 1.5
            ? 'The clocks of this host and of the push server agree.'
            : sprintf(
                'The clock of the push server is %d seconds %s; tokens allow 60, requests %d.',
                abs($skew),
                $skew > 0 ? 'ahead' : 'behind',
                Api::WINDOW
            );
        $this->note('clock', $status, $message);
    }

    private function checkTokenKey(): void
    {
        $headers = [
            'Authorization' => 'Bearer ' . $this->issuer->issue('0', '', [], [], 60),
            'Content-Type' => 'application/json',
        ];
        try {
            $answer = $this->site->post('/ticket', $headers, '', self::PATIENCE);
        } catch (CallFailed $failure) {
            $message = "PUSH_TOKEN_KEY cannot be tried from here, because PUSH_URL = {$this->config->url} cannot be"
                . " reached from this host: {$failure->getMessage()} Browsers may still reach it.";
            $this->note('token_key', CheckStatus::Skipped, $message);
            return;
        }
        $error = Api::error($answer->json());
        if ($answer->status === 200 && isset($answer->json()['ticket'])) {
            $this->note('token_key', CheckStatus::Ok, 'The push server takes our tokens.');
        } elseif ($error === null) {
            $message = "What answers at PUSH_URL = {$this->config->url}, with status $answer->status,"
                . ' is no push server.';
            $this->note('token_key', CheckStatus::Error, $message);
        } elseif ($error[0] === 'token_invalid') {
            $message = 'The push server does not take our tokens: PUSH_TOKEN_KEY must be one of its token_keys'
                . ', and the clocks must agree within 60 seconds.';
            $this->note('token_key', CheckStatus::Error, $message);
        } else {
            $this->note('token_key', CheckStatus::Warning, "The push server answers: $error[1]");
        }
    }

    private function checkSpool(): void
    {
        if ($this->directory === null) {
            $message = 'There is no spool: what is published while the push server is away is lost.';
            $this->note('spool', CheckStatus::Warning, $message);
            return;
        }
        $spool = new DirectorySpool($this->directory);
        try {
            $spool->prepare();
        } catch (SpoolException $failure) {
            $this->note('spool', CheckStatus::Error, $failure->getMessage());
            return;
        }
        $message = $spool->isEmpty() ? 'Nothing waits in' : 'Something waits to be sent in';
        $this->note('spool', CheckStatus::Ok, "$message $this->directory.");
    }

    private function checkResponse(): void
    {
        $isFree = array_filter(Client::FINISHERS, 'function_exists') !== [];
        $this->note(
            'after_response',
            $isFree ? CheckStatus::Ok : CheckStatus::Warning,
            $isFree
                ? 'PHP sends after the visitor has the page.'
                : sprintf(
                    'This PHP (%s) cannot send after the response as PHP-FPM can: a page that publishes'
                    . ' waits for the push server, %d ms at most.',
                    PHP_SAPI,
                    1e3 * $this->config->timeout
                )
        );
    }

    private function note(string $name, CheckStatus $status, string $message): void
    {
        $this->checks[$name] = new Check($name, $status, $message);
    }
}
