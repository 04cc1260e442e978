<?php

declare(strict_types=1);

namespace PushServer\Tests\Drupal;

use Drupal\push_server\Outbox;
use PHPUnit\Framework\TestCase;
use PushServer\Check;
use Symfony\Component\Yaml\Yaml;

/**
 * Stand-ins: what the files of the module say of each other.
 */
final class FilesTest extends TestCase
{
    /**
     * @return array<string, mixed>
     */
    private static function yaml(string $name): array
    {
        return Yaml::parseFile(MODULE . "/$name", Yaml::PARSE_CUSTOM_TAGS);
    }

    private static function code(): string
    {
        $code = (string) file_get_contents(MODULE . '/push_server.install');
        $files = new \RecursiveIteratorIterator(new \RecursiveDirectoryIterator(MODULE . '/src'));
        foreach ($files as $file) {
            $code .= $file->isFile() ? file_get_contents($file->getPathname()) : '';
        }
        return $code;
    }

    public function testEveryRouteLeadsSomewhere(): void
    {
        $permissions = array_keys(self::yaml('push_server.permissions.yml'));
        $routes = self::yaml('push_server.routing.yml');
        foreach ($routes as $name => $route) {
            [$class, $method] = explode('::', $route['defaults']['_controller'] ?? '') + [1 => ''];
            if ($method === '') {
                [$class, $method] = [$route['defaults']['_form'], 'buildForm'];
            }
            self::assertTrue(method_exists(ltrim($class, '\\'), $method), $name);
            $permission = $route['requirements']['_permission'] ?? null;
            self::assertTrue($permission === null || in_array($permission, $permissions, true), $name);
        }
        preg_match_all("/'(push_server\.[a-z]+)'/", self::code(), $named);
        $known = [...array_keys($routes), 'push_server.settings'];
        self::assertSame([], array_diff($named[1], $known));
        self::assertSame('push_server.settings', self::yaml('push_server.info.yml')['configure']);
    }

    public function testEveryFileOfALibraryIsThere(): void
    {
        $libraries = self::yaml('push_server.libraries.yml');
        foreach ($libraries as $name => $library) {
            $files = array_keys(($library['js'] ?? []) + ($library['css']['component'] ?? []));
            self::assertNotSame([], $files, $name);
            foreach ($files as $file) {
                self::assertFileExists(MODULE . "/$file");
            }
            foreach ($library['dependencies'] as $dependency) {
                [$module, $other] = explode('/', $dependency);
                self::assertTrue($module === 'core' || isset($libraries[$other]), "$name: $dependency");
            }
        }
        preg_match_all("/->attach\([^;]*, '(\w+)'\)/", self::code(), $attached);
        self::assertSame([], array_diff($attached[1], array_keys($libraries)));
    }

    public function testEverySettingIsInstalledDescribedAndInTheForm(): void
    {
        $installed = self::yaml('config/install/push_server.settings.yml');
        $schema = self::yaml('config/schema/push_server.schema.yml')['push_server.settings']['mapping'];
        self::assertSame(array_keys($installed), array_keys($schema));
        self::assertSame(array_keys($installed['notify']), array_keys($schema['notify']['mapping']));
        $form = implode('', array_map('file_get_contents', glob(MODULE . '/src/Form/*.php')));
        $left = array_diff(array_keys($installed), ['notify', 'token_key_id', 'api_key_id']);
        foreach ([...$left, ...array_map(static fn ($name) => "notify.$name", array_keys($installed['notify']))] as $name) {
            $isThere = str_contains($form, "push_server.settings:$name'") || str_contains($form, "'$name'");
            self::assertTrue($isThere, $name);
        }
    }

    public function testEveryCheckHasATitleThatCanBeTranslated(): void
    {
        $health = (string) file_get_contents(MODULE . '/src/Health.php');
        foreach ((new \ReflectionClassConstant(Check::class, 'TITLES'))->getValue() as $name => $title) {
            $words = preg_quote($title, '/');
            $translated = str_contains($title, '.') ? "'$words'" : "\\\$this->t\(['\"]{$words}['\"]\)";
            self::assertMatchesRegularExpression("/^ +'$name' => $translated,$/m", $health);
        }
    }

    public function testAnUninstallLeavesNoQueueBehind(): void
    {
        require_once MODULE . '/push_server.install';
        self::assertTrue(function_exists('push_server_uninstall'));
        \push_server_uninstall();
        self::assertSame([Outbox::QUEUE], \Drupal::$deleted);
    }

    public function testEveryTemplateIsThere(): void
    {
        preg_match_all("/'(push_server_\w+)' => \['variables'/", self::code(), $found);
        self::assertCount(3, $found[1]);
        foreach ($found[1] as $hook) {
            self::assertFileExists(MODULE . '/templates/' . strtr($hook, '_', '-') . '.html.twig');
        }
        self::assertCount(3, glob(MODULE . '/templates/*.twig'));
    }

    public function testVersionsAreTheSameEverywhere(): void
    {
        $info = self::yaml('push_server.info.yml');
        $composer = json_decode((string) file_get_contents(MODULE . '/composer.json'), true);
        self::assertSame($info['core_version_requirement'], $composer['require']['drupal/core']);
        self::assertSame('>=' . $info['php'], $composer['require']['php']);
    }
}
