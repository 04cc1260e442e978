<?php

/**
 * Makes the second site of a network, at /second/, and activates the plugin for the network.
 *
 * Run by tests/wordpress/site.py after install.php: php network.php HOST FOLDER
 */

declare(strict_types=1);

[, $host, $folder] = $argv;

$_SERVER += ['HTTP_HOST' => $host, 'SERVER_NAME' => $host, 'SERVER_PROTOCOL' => 'HTTP/1.1'];
$_SERVER += ['REQUEST_METHOD' => 'GET', 'REQUEST_URI' => '/', 'REMOTE_ADDR' => '127.0.0.1'];

require "$folder/wp-load.php";
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/plugin.php';

$site = wpmu_create_blog($host, '/second/', 'The second', 1);
foreach (['alice' => 'author', 'bob' => 'subscriber'] as $name => $role) {
    add_user_to_blog($site, get_user_by('login', $name)->ID, $role);
}
switch_to_blog($site);
switch_theme('plain');
update_option('comment_previously_approved', 0);
wp_insert_post([
    'post_title' => 'Elsewhere', 'post_name' => 'elsewhere', 'post_status' => 'publish',
    'post_author' => get_user_by('login', 'alice')->ID, 'post_content' => 'Words.',
]);
restore_current_blog();
$failure = activate_plugin('push-server/push-server.php', '', true);
if ($failure) {
    fwrite(STDERR, $failure->get_error_message());
    exit(1);
}
