<?php

declare(strict_types=1);

namespace PushServer\Tests\Drupal;

use PHPUnit\Framework\TestCase;

/**
 * Stand-ins: Drupal 10 calls functions, Drupal 11 calls methods, and both do the same.
 */
final class HooksTest extends TestCase
{
    /**
     * @return array<string, array{string, string}> class and method by hook
     */
    private static function methods(): array
    {
        $found = [];
        foreach (glob(MODULE . '/src/Hook/*.php') as $path) {
            $class = new \ReflectionClass('Drupal\push_server\Hook\\' . basename($path, '.php'));
            foreach ($class->getMethods(\ReflectionMethod::IS_PUBLIC) as $method) {
                foreach ($method->getAttributes('Drupal\Core\Hook\Attribute\Hook') as $attribute) {
                    $found[$attribute->getArguments()[0]] = [$class->getShortName(), $method->getName()];
                }
            }
        }
        return $found;
    }

    public function testEveryHookIsThereInBothWays(): void
    {
        $file = (string) file_get_contents(MODULE . '/push_server.module');
        $call = '/#\[LegacyHook\]\nfunction push_server_(\w+)\(.*\n'
            . '  (?:return )?\\\\Drupal::service\((\w+)::class\)->(\w+)\(.*\n\}/';
        preg_match_all($call, $file, $matches, PREG_SET_ORDER);
        self::assertSame(preg_match_all('/^function /m', $file), count($matches), 'a function that is no hook');
        $functions = [];
        foreach ($matches as [, $hook, $class, $method]) {
            $functions[$hook] = [$class, $method];
        }
        $methods = self::methods();
        // In push_server.install, and under another name.
        unset($methods['runtime_requirements']);
        ksort($functions);
        ksort($methods);
        self::assertSame($methods, $functions);
    }

    public function testTheStatusReportIsThereInBothWays(): void
    {
        self::assertSame(['SiteHooks', 'requirements'], self::methods()['runtime_requirements']);
        $file = (string) file_get_contents(MODULE . '/push_server.install');
        self::assertStringContainsString("#[LegacyRequirementsHook]\nfunction push_server_requirements(", $file);
    }
}
