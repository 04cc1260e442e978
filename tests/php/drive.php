<?php

/**
 * Does what tests/test_php_client.py tells it on standard input, as one request of a site would.
 *
 * In: {"settings": {…}, "steps": [["publish", ["news", 1]], ["flush", []], …]}. Out: for each step its
 * result and how long it took, and the lines of the log.
 */

declare(strict_types=1);

require __DIR__ . '/../../cms_module/client/autoload.php';

use PushServer\Check;
use PushServer\Client;

$given = json_decode(stream_get_contents(STDIN), true, 64, JSON_THROW_ON_ERROR);
$lines = [];
$log = static function (string $level, string $message) use (&$lines): void {
    $lines[] = "$level: $message";
};
$client = Client::create($given['settings'], $log, null, $given['after_response'] ?? false);
$steps = [];
foreach ($given['steps'] as [$method, $arguments]) {
    $begin = hrtime(true);
    if ($method === 'wait_until') {
        usleep((int) max(0, 1e6 * ($arguments[0] - microtime(true))));
        $result = null;
    } else {
        $result = $client->$method(...$arguments);
    }
    if ($method === 'testConnection') {
        $result = array_map(static fn (Check $check): array => [$check->status->value, $check->message], $result);
    }
    $steps[] = ['result' => $result, 'seconds' => (hrtime(true) - $begin) / 1e9];
}
echo json_encode(['steps' => $steps, 'log' => $lines], JSON_THROW_ON_ERROR);
