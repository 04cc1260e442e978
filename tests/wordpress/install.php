<?php

/**
 * Installs WordPress, as its own installer would, and makes the users of the tests.
 *
 * Run by tests/wordpress/site.py: php install.php HOST FOLDER [network]
 */

declare(strict_types=1);

[, $host, $folder] = $argv;
$network = ($argv[3] ?? '') === 'network';

define('WP_INSTALLING', true);
$_SERVER += ['HTTP_HOST' => $host, 'SERVER_NAME' => strtok($host, ':'), 'SERVER_PROTOCOL' => 'HTTP/1.1'];
$_SERVER += ['REQUEST_METHOD' => 'GET', 'REQUEST_URI' => '/', 'REMOTE_ADDR' => '127.0.0.1'];

require "$folder/wp-load.php";
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/plugin.php';

wp_install('The test', 'admin', 'admin@wp.test', true, '', 'admin');
$roles = ['alice' => 'author', 'bob' => 'subscriber', 'carol' => 'subscriber', 'dora' => 'contributor', 'eve' => 'editor'];
foreach ($roles as $name => $role) {
    $id = wp_create_user($name, $name, "$name@wp.test");
    (new WP_User($id))->set_role($role);
    wp_update_user(['ID' => $id, 'display_name' => ucfirst($name)]);
}
switch_theme('plain');
update_option('permalink_structure', '/%postname%/');
// Comments of users are approved at once, those of others are not.
update_option('comment_previously_approved', 0);
update_option('comment_moderation', 0);
update_option('comments_notify', 0);
update_option('moderation_notify', 0);
wp_insert_post([
    'post_title' => 'Hello of Alice', 'post_name' => 'hello-alice', 'post_status' => 'publish',
    'post_author' => get_user_by('login', 'alice')->ID, 'post_content' => 'Words.',
]);
wp_insert_post([
    'post_title' => 'Members', 'post_name' => 'members', 'post_status' => 'publish', 'post_type' => 'page',
    'post_content' => '<!-- wp:push-server/notifications /-->', 'post_author' => 1,
]);
flush_rewrite_rules(false);
if ($network) {
    foreach ($wpdb->tables('ms_global') as $name => $table) {
        $wpdb->$name = $table;
    }
    install_network();
    populate_network(1, $host, 'admin@wp.test', 'The network');
    exit;
}
$failure = activate_plugin('push-server/push-server.php');
if ($failure) {
    fwrite(STDERR, $failure->get_error_message());
    exit(1);
}
