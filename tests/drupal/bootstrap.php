<?php

/**
 * Loads the module, Symfony from Debian, and stand-ins for what belongs to Drupal.
 *
 * A name of Drupal that nobody has defined becomes an empty interface, trait or class. So these
 * tests see whether the parts of the module fit each other, and not whether they fit Drupal; that
 * is what the Kernel and Functional tests in cms_module/drupal/tests are for, in a real one.
 */

declare(strict_types=1);

const MODULE = __DIR__ . '/../../cms_module/drupal';

foreach (['DependencyInjection', 'EventDispatcher', 'HttpKernel', 'Yaml', 'Config'] as $component) {
    require_once "Symfony/Component/$component/autoload.php";
}
require MODULE . '/lib/client/autoload.php';
require __DIR__ . '/stubs.php';

spl_autoload_register(static function (string $class): void {
    $name = substr((string) strrchr("\\$class", '\\'), 1);
    if (str_starts_with($class, 'PushServer\\Tests\\Drupal\\')) {
        require __DIR__ . "/$name.php";
    } elseif (str_starts_with($class, 'Drupal\\push_server\\')) {
        $path = MODULE . '/src/' . strtr(substr($class, strlen('Drupal\\push_server\\')), '\\', '/') . '.php';
        if (is_file($path)) {
            require $path;
        }
    } elseif (str_starts_with($class, 'Drupal\\')) {
        $kind = match (true) {
            str_ends_with($name, 'Interface') => 'interface',
            str_ends_with($name, 'Trait') => 'trait',
            default => 'class',
        };
        $namespace = substr($class, 0, -strlen($name) - 1);
        eval("namespace $namespace; $kind $name {}");
    }
});
