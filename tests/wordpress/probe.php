<?php

/**
 * A must-use plugin of the tests: switches the plugin off for one of the two ports, stops mail, and
 * lets a test run what a developer would write.
 */

declare(strict_types=1);

add_filter('pre_wp_mail', '__return_true');
// People of the tests write faster than people.
add_filter('comment_flood_filter', '__return_false', 99);
// Who has no account waits for a moderator.
add_filter(
    'pre_comment_approved',
    static fn ($approved, $comment) => empty($comment['user_id']) ? 0 : $approved,
    10,
    2
);

if (getenv('PUSH_OFF')) {
    add_filter('option_active_plugins', static fn ($plugins) => array_diff($plugins, ['push-server/push-server.php']));
}

// PHP that a test has put into a file, run as part of a request of whoever asks for it.
add_action('init', static function (): void {
    $code = getenv('PUSH_PROBE') . '/' . basename($_GET['probe'] ?? '-') . '.php';
    if (is_file($code)) {
        $result = (static fn () => require $code)();
        header('Content-Type: application/json');
        echo json_encode($result, JSON_PARTIAL_OUTPUT_ON_ERROR);
        exit;
    }
}, 99);
