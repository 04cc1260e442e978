<?php
/**
 * When WordPress calls the plugin, and what answers.
 *
 * The classes are loaded when they are first called, so a page that has nothing to do with push
 * loads none of them but the bell's.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

// The plugin itself.
register_activation_hook( PUSH_SERVER_FILE, 'Push_Server_Tables::create' );
register_deactivation_hook( PUSH_SERVER_FILE, 'Push_Server_Cron::stop' );
add_action( 'admin_init', 'Push_Server_Tables::upgrade' );
add_action( 'init', 'Push_Server_Cron::start' );
add_action( 'push_server_daily', 'Push_Server_Cron::daily' );
add_action( 'push_server_drain', 'Push_Server_Cron::drain' );
add_action(
	'init',
	static function (): void {
		load_plugin_textdomain( 'push-server', false, dirname( plugin_basename( PUSH_SERVER_FILE ) ) . '/languages' );
	},
	1
);

// What users see.
add_action( 'init', 'Push_Server_Block::register' );
add_action( 'wp_enqueue_scripts', 'Push_Server_Bell::enqueue' );
add_action( 'admin_enqueue_scripts', 'Push_Server_Bell::enqueue' );
// Behind the account menu, which core adds at 7: the bar floats from the right.
add_action( 'admin_bar_menu', 'Push_Server_Bell::add_node', 8 );
add_filter( 'wp_headers', 'Push_Server_Bridge::add_header' );
add_action( 'admin_init', 'Push_Server_Bridge::send_header' );
add_action( 'login_init', 'Push_Server_Bridge::send_header' );

// What their pages ask for.
add_action( 'wp_ajax_push_server_state', 'Push_Server_Ajax::state' );
add_action( 'wp_ajax_nopriv_push_server_state', 'Push_Server_Ajax::signed_out' );
add_action( 'wp_ajax_push_server_seen', 'Push_Server_Ajax::seen' );
add_action( 'wp_ajax_push_server_ping', 'Push_Server_Ajax::ping' );

// What ends a session, or the rights it was given.
add_action( 'update_user_meta', 'Push_Server_Sessions::before_update', 10, 3 );
add_action( 'updated_user_meta', 'Push_Server_Sessions::after_update', 10, 4 );
add_action( 'delete_user_meta', 'Push_Server_Sessions::before_delete', 10, 3 );
add_action( 'deleted_user_meta', 'Push_Server_Sessions::after_delete', 10, 3 );
add_action( 'clear_auth_cookie', 'Push_Server_Sessions::logout' );
add_action( 'profile_update', 'Push_Server_Sessions::profile_update', 10, 2 );
add_action( 'after_password_reset', 'Push_Server_Sessions::password_reset' );
add_action( 'wp_set_password', 'Push_Server_Sessions::password_set', 10, 2 );
add_action( 'set_user_role', 'Push_Server_Sessions::role_set', 10, 3 );
foreach ( array( 'add_user_role', 'remove_user_role', 'granted_super_admin', 'revoked_super_admin', 'remove_user_from_blog', 'make_spam_user' ) as $push_server_hook ) {
	add_action( $push_server_hook, 'Push_Server_Sessions::end_all' );
}
unset( $push_server_hook );
add_action( 'deleted_user', 'Push_Server_Sessions::user_deleted' );
add_action( 'wpmu_delete_user', 'Push_Server_Sessions::user_deleted' );

// What is worth a notification.
add_action( 'wp_insert_comment', 'Push_Server_Comments::posted', 10, 2 );
add_action( 'transition_comment_status', 'Push_Server_Comments::moderated', 10, 3 );
add_action( 'deleted_comment', 'Push_Server_Comments::gone' );
add_action( 'transition_post_status', 'Push_Server_Posts::changed', 10, 3 );
add_action( 'deleted_post', 'Push_Server_Posts::gone' );
add_action( 'remove_user_from_blog', 'Push_Server_Inbox::forget_member', 10, 2 );
add_action( 'wp_uninitialize_site', 'Push_Server_Inbox::forget_site' );

// What the owner sees.
add_action( is_multisite() ? 'network_admin_menu' : 'admin_menu', 'Push_Server_Settings_Page::add' );
add_filter( ( is_multisite() ? 'network_admin_' : '' ) . 'plugin_action_links_' . plugin_basename( PUSH_SERVER_FILE ), 'Push_Server_Settings_Page::add_link' );
add_action( 'admin_notices', 'Push_Server_Settings_Page::ask_for_settings' );
add_action( 'network_admin_notices', 'Push_Server_Settings_Page::ask_for_settings' );
add_filter( 'site_status_tests', 'Push_Server_Health::add_tests' );
add_filter( 'debug_information', 'Push_Server_Health::add_information' );
add_action( 'rest_api_init', 'Push_Server_Health::add_route' );

// Personal data.
add_filter( 'wp_privacy_personal_data_exporters', 'Push_Server_Privacy::add_exporter' );
add_filter( 'wp_privacy_personal_data_erasers', 'Push_Server_Privacy::add_eraser' );
add_action( 'admin_init', 'Push_Server_Privacy::suggest_text' );
