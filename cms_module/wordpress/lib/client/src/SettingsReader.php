<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\ConfigException;

/**
 * Reads settings and collects what is wrong with them, so that an owner sees it all at once.
 *
 * @internal
 */
final class SettingsReader
{
    /** @var array<string, string> */
    private array $problems = [];

    /**
     * @param array<string, mixed> $values
     * @param \Closure(string): string $spell how the user writes the name of a setting
     */
    public function __construct(
        #[\SensitiveParameter] private readonly array $values,
        private readonly \Closure $spell
    ) {
    }

    /**
     * How the user writes the name of a setting. Holds no secrets, unlike the reader itself.
     *
     * @return \Closure(string): string
     */
    public function spelling(): \Closure
    {
        return $this->spell;
    }

    /**
     * @param list<string> $known
     */
    public function refuseUnknown(array $known): void
    {
        foreach (array_diff(array_map('strval', array_keys($this->values)), $known) as $name) {
            usort($known, static fn (string $a, string $b): int => levenshtein($name, $a) <=> levenshtein($name, $b));
            $this->problem($name, sprintf('is no setting; the nearest is %s', ($this->spell)($known[0])));
        }
    }

    /**
     * One secret, or several, oldest first: a list, or separated by blanks.
     *
     * @param \Closure(string): string $decode throws \UnexpectedValueException
     * @return list<string>
     */
    public function secrets(string $name, \Closure $decode): array
    {
        $given = $this->values[$name] ?? '';
        $given = is_string($given) ? preg_split('/\s+/', $given, -1, PREG_SPLIT_NO_EMPTY) : $given;
        if (!is_array($given) || $given === []) {
            $this->problem($name, 'is missing; push-server init prints it');
            return [];
        }
        $decoded = [];
        foreach ($given as $secret) {
            try {
                $decoded[] = $decode(is_string($secret) ? $secret : '');
            } catch (\UnexpectedValueException $reason) {
                $this->problem($name, $reason->getMessage());
            }
        }
        return $decoded;
    }

    /**
     * A URL without a path; "unix:" is followed by one and nothing else.
     *
     * @param list<string> $schemes
     */
    public function url(string $name, array $schemes, bool $api): string
    {
        $given = $this->values[$name] ?? '';
        if (!is_string($given) || $given === '') {
            $this->problem($name, 'is missing; push-server init prints it');
            return '';
        }
        if (in_array('unix', $schemes, true) && preg_match('~\Aunix:/[^\x00-\x1f]+\z~', $given)) {
            return $given;
        }
        $url = rtrim($given, '/');
        $url = $api && str_ends_with($url, '/api') ? substr($url, 0, -4) : $url;
        $choice = implode(', ', array_map(
            static fn (string $scheme): string => $scheme === 'unix' ? 'unix:/' : "$scheme://",
            $schemes
        ));
        if (!preg_match('~\A(?:' . implode('|', $schemes) . ')://~', $url)) {
            $this->problem($name, "has no scheme: it begins with one of $choice");
        } elseif (!preg_match('~\A\w+://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\z~', $url)) {
            $this->problem($name, 'is a scheme, a host and perhaps a port, such as http://127.0.0.1:6667');
        }
        return $url;
    }

    public function number(string $name, float $default, float $least, float $most): float
    {
        $given = $this->values[$name] ?? $default;
        if (!is_numeric($given) || $given < $least || $given > $most) {
            $this->problem($name, sprintf('is a number from %s to %s', $least, $most));
            return $default;
        }
        return (float) $given;
    }

    /**
     * An absolute path; "" is allowed; null if it is not set.
     */
    public function directory(string $name): ?string
    {
        $given = $this->values[$name] ?? null;
        if ($given === null || $given === '') {
            return $given;
        }
        if (!is_string($given) || !preg_match('~\A(?:/|[A-Za-z]:[/\\\\])~', $given)) {
            $this->problem($name, 'is the absolute path of a directory, or empty for none');
            return null;
        }
        return rtrim($given, '/');
    }

    public function label(string $name, string $default): string
    {
        $given = $this->values[$name] ?? $default;
        if (!is_string($given) || !preg_match('/\A[\x21-\x7e]{1,64}\z/', $given)) {
            $this->problem($name, 'is 1 to 64 printable ASCII characters');
            return $default;
        }
        return $given;
    }

    public function flag(string $name): bool
    {
        $flag = filter_var($this->values[$name] ?? false, FILTER_VALIDATE_BOOL, FILTER_NULL_ON_FAILURE);
        if ($flag === null) {
            $this->problem($name, 'is true or false');
        }
        return (bool) $flag;
    }

    /**
     * @throws ConfigException if there was any problem
     */
    public function finish(): void
    {
        if ($this->problems) {
            throw new ConfigException($this->problems);
        }
    }

    private function problem(string $name, string $what): void
    {
        $spelled = ($this->spell)($name);
        $this->problems[$name] ??= "$spelled $what.";
    }
}
