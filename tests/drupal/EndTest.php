<?php

declare(strict_types=1);

namespace PushServer\Tests\Drupal;

use PHPUnit\Framework\TestCase;

/**
 * Stand-ins: a request that a web server has asked for, and that ends with exit.
 */
final class EndTest extends TestCase
{
    private const PATIENCE = 20;

    public function testWhatAnExitWouldLoseIsDone(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $address = stream_socket_get_name($listener, false);
        fclose($listener);
        $command = [PHP_BINARY, '-d', 'display_errors=1', '-S', $address, __DIR__ . '/exits.php'];
        $server = proc_open($command, [['null'], ['null'], ['null']], $pipes);
        try {
            for ($end = time() + self::PATIENCE; !$answer = @file_get_contents("http://$address/");) {
                self::assertLessThan($end, time(), 'the server of PHP is up');
                usleep(20_000);
            }
        } finally {
            proc_terminate($server);
            proc_close($server);
        }
        self::assertSame(
            '[["publish",{"channel":"early"}]]' . "\n" . '[["publish",{"channel":"late"}],["publish",{"channel":"last"}]]' . "\n",
            $answer
        );
    }
}
