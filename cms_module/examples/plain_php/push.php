<?php

declare(strict_types=1);

require __DIR__ . '/../../client/autoload.php';

// The push server, as every page of the site sees it.
function push(): PushServer\Client
{
    static $push = null;
    return $push ??= PushServer\Client::create();
}
