<?php

declare(strict_types=1);

require __DIR__ . '/push.php';

session_start();
header('Content-Type: text/plain');
header('Cache-Control: private, no-store');
if (!isset($_SESSION['user'])) {
    http_response_code(401);
    exit;
}
echo push()->token($_SESSION['user'], session_id(), ['news', 'node:*']);
