<?php

/**
 * A request that ends without the kernel, as EndTest asks for it: with exit, as the logouts of some
 * single sign-ons do, and after something has been done already.
 */

declare(strict_types=1);

use Drupal\Core\Database\Connection;
use Drupal\Core\Queue\QueueFactory;
use Drupal\push_server\JobRunner;
use Drupal\push_server\Outbox;
use Psr\Log\NullLogger;
use PushServer\Tests\Drupal\Parts;

require __DIR__ . '/bootstrap.php';

$queues = new class extends QueueFactory {
    public function get(): self
    {
        return $this;
    }

    /**
     * @param list<array{string, array<string, mixed>}> $jobs
     */
    public function createItem(array $jobs): void
    {
        echo json_encode($jobs), "\n";
    }
};
$runner = (new ReflectionClass(JobRunner::class))->newInstanceWithoutConstructor();
$config = Parts::config(['delivery' => 'queue']);
$outbox = new Outbox(new Connection(), $runner, Parts::clients(), $queues, $config, new NullLogger());
$outbox->add('publish', ['channel' => 'early']);
$outbox->destruct();
register_shutdown_function(static fn () => $outbox->add('publish', ['channel' => 'last']));
$outbox->add('publish', ['channel' => 'late']);
exit;
