<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\CallFailed;
use PushServer\Exception\NoAnswer;
use PushServer\Exception\Refused;
use PushServer\Http\Answer;
use PushServer\Http\Transport;

/**
 * Signed calls of POST /api, and what their failures mean to the owner of the site.
 *
 * @internal
 */
final class Api
{
    public const VERSION = '0.1.0';
    /** Seconds that the two clocks may differ. */
    public const WINDOW = 300;

    /**
     * @param \Closure(): float $clock
     * @param \Closure(string): string|null $spell how the user writes the name of a setting
     */
    public function __construct(
        private readonly Transport $transport,
        private readonly RequestSigner $signer,
        private readonly string $name,
        private readonly \Closure $clock,
        private readonly ?\Closure $spell = null
    ) {
    }

    /**
     * @param string $body a command or a list of commands
     * @throws CallFailed if there is no answer; any status is an answer
     */
    public function call(string $body, float $seconds): Answer
    {
        // Made of the body, so that a retry keeps it, in whatever process that happens.
        $id = substr(hash('sha256', $body), 0, 40);
        $now = (int) ($this->clock)();
        return $this->transport->post('/api', [
            'Content-Type' => 'application/json',
            'User-Agent' => 'push-server-php/' . self::VERSION . " $this->name",
            'webhook-id' => $id,
            'webhook-timestamp' => (string) $now,
            'webhook-signature' => $this->signer->sign($id, $now, $body),
        ], $body, $seconds);
    }

    /**
     * Why this answer is not what was asked for, in a sentence that names the setting.
     */
    public function failure(Answer $answer): CallFailed
    {
        $error = self::error($answer->json());
        $status = $answer->status;
        if ($status === 200) {
            return new NoAnswer('answer_malformed', "What answers at {$this->spelled('api')} is no push server.");
        }
        // The public listener has errors of the same form, but no /api.
        if ($error === null || $status === 404) {
            $message = "What answers at {$this->spelled('api')}, with status $status,"
                . ' is not the internal listener of a push server.';
            return new Refused('http_error', $message, $status);
        }
        [$code, $text] = $error;
        $skew = $answer->clockSkew(($this->clock)()) ?? 0.0;
        if ($code === 'signature_invalid' && abs($skew) > self::WINDOW) {
            $text = sprintf(
                'The clocks of this host and of the push server differ by %d seconds; %d are allowed.',
                abs($skew),
                self::WINDOW
            );
        } elseif ($code === 'signature_invalid') {
            $text = "The push server does not know the key: {$this->spelled('api_key')} must be one of its api_keys.";
        }
        return new Refused($code, $text, $status);
    }

    private function spelled(string $name): string
    {
        return $this->spell === null ? 'PUSH_' . strtoupper($name) : ($this->spell)($name);
    }

    /**
     * Code and message of an error in the form of the API; null if this is none.
     *
     * @return array{string, string}|null
     */
    public static function error(mixed $value): ?array
    {
        $error = is_array($value) ? ($value['error'] ?? null) : null;
        if (!is_array($error) || !is_string($error['code'] ?? null)) {
            return null;
        }
        $message = is_string($error['message'] ?? null) ? $error['message'] : $error['code'];
        // Foreign text on its way into a log: one line, and not a long one.
        return [$error['code'], substr((string) preg_replace('/[^\x20-\x7e]+/', ' ', $message), 0, 200)];
    }
}
