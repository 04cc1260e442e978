<?php

declare(strict_types=1);

namespace PushServer;

/**
 * The results of a connection test, as they come in.
 *
 * @internal
 */
final class Checklist
{
    /** @var array<string, Check> */
    private array $checks = [];

    public function ok(string $name, string $message): void
    {
        $this->note($name, CheckStatus::Ok, $message);
    }

    public function warning(string $name, string $message): void
    {
        $this->note($name, CheckStatus::Warning, $message);
    }

    public function error(string $name, string $message): void
    {
        $this->note($name, CheckStatus::Error, $message);
    }

    public function skipped(string $message, string ...$names): void
    {
        foreach ($names as $name) {
            $this->note($name, CheckStatus::Skipped, $message);
        }
    }

    /**
     * @return array<string, Check>
     */
    public function all(): array
    {
        return $this->checks;
    }

    private function note(string $name, CheckStatus $status, string $message): void
    {
        $this->checks[$name] = new Check($name, $status, $message);
    }
}
