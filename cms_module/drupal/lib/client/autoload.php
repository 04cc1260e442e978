<?php

/**
 * Loads the classes of this library. For sites without Composer.
 */

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'PushServer\\')) {
        $path = __DIR__ . '/src/' . strtr(substr($class, strlen('PushServer\\')), '\\', '/') . '.php';
        if (is_file($path)) {
            require $path;
        }
    }
});
