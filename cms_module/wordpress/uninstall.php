<?php
/**
 * Leaves nothing behind when the plugin is deleted.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'WP_UNINSTALL_PLUGIN' ) || exit;

require_once __DIR__ . '/includes/class-push-server-tables.php';

Push_Server_Tables::drop();
foreach ( array( 'push_server', 'push_server_problems' ) as $push_server_option ) {
	delete_site_option( $push_server_option );
}
delete_metadata( 'user', 0, 'push_server_seen', '', true );
foreach ( is_multisite() ? get_sites( array( 'number' => 0 ) ) : array( null ) as $push_server_site ) {
	if ( $push_server_site ) {
		switch_to_blog( (int) $push_server_site->blog_id );
	}
	wp_unschedule_hook( 'push_server_daily' );
	wp_unschedule_hook( 'push_server_drain' );
	if ( $push_server_site ) {
		restore_current_blog();
	}
}
