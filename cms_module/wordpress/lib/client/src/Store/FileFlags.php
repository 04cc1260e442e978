<?php

declare(strict_types=1);

namespace PushServer\Store;

/**
 * Flags as files that hold the time until which they are up.
 */
final class FileFlags implements Flags
{
    public function __construct(private readonly string $directory)
    {
    }

    public function raise(string $name, int $seconds): bool
    {
        $path = $this->path($name);
        // One that another system user made is not in the way: the directory is ours.
        $file = @fopen($path, 'c+') ?: (@unlink($path) ? @fopen($path, 'c+') : false);
        if ($file === false) {
            // Where nothing can be written, every process is on its own.
            return true;
        }
        try {
            if (!flock($file, LOCK_EX | LOCK_NB)) {
                return false;
            }
            $left = (float) stream_get_contents($file) - microtime(true);
            // More than it was raised for: the clock was set back since.
            if ($left > 0 && $left <= $seconds) {
                return false;
            }
            rewind($file);
            ftruncate($file, 0);
            fwrite($file, sprintf('%.6F', microtime(true) + $seconds));
            return true;
        } finally {
            fclose($file);
        }
    }

    public function isUp(string $name): bool
    {
        $path = $this->path($name);
        return is_file($path) && (float) @file_get_contents($path) > microtime(true);
    }

    public function lower(string $name): bool
    {
        return @unlink($this->path($name));
    }

    private function path(string $name): string
    {
        return "$this->directory/flag-" . preg_replace('/[^A-Za-z0-9_-]/', '-', $name);
    }
}
