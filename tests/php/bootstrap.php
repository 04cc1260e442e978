<?php

declare(strict_types=1);

require __DIR__ . '/../../cms_module/client/autoload.php';

spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'PushServer\\Tests\\')) {
        require __DIR__ . '/' . substr($class, strlen('PushServer\\Tests\\')) . '.php';
    }
});
