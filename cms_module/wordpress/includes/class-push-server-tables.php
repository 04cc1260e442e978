<?php
/**
 * The two tables of the plugin.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Makes the tables, and makes them new when a release changes them.
 *
 * A network of sites shares them, as it shares its users: one bell shows what happened on all of
 * its sites, and one spool holds what waits for its one push server.
 */
final class Push_Server_Tables {

	private const VERSION = 1;
	private const OPTION  = 'push_server_tables';

	/**
	 * The table of notifications.
	 */
	public static function inbox(): string {
		global $wpdb;
		return $wpdb->base_prefix . 'push_server_inbox';
	}

	/**
	 * The table of what waits for the push server.
	 */
	public static function spool(): string {
		global $wpdb;
		return $wpdb->base_prefix . 'push_server_spool';
	}

	/**
	 * Make the tables, if the plugin was put here or replaced without being activated.
	 */
	public static function upgrade(): void {
		if ( self::VERSION !== (int) get_site_option( self::OPTION ) ) {
			self::create();
		}
	}

	/**
	 * Make the tables as they should be.
	 */
	public static function create(): void {
		global $wpdb;
		require_once ABSPATH . 'wp-admin/includes/upgrade.php';
		$inbox   = self::inbox();
		$spool   = self::spool();
		$charset = $wpdb->get_charset_collate();
		// The spelling is dbDelta's: it compares it with what the database says.
		dbDelta(
			"CREATE TABLE $inbox (
			id bigint(20) unsigned NOT NULL AUTO_INCREMENT,
			user_id bigint(20) unsigned NOT NULL,
			blog_id bigint(20) unsigned NOT NULL,
			post_id bigint(20) unsigned NOT NULL DEFAULT 0,
			source varchar(100) NOT NULL,
			kind varchar(40) NOT NULL,
			title varchar(250) NOT NULL,
			text varchar(500) NOT NULL,
			sender varchar(250) NOT NULL,
			url text NOT NULL,
			created bigint(20) unsigned NOT NULL,
			PRIMARY KEY  (id),
			UNIQUE KEY once (user_id,source),
			KEY source (source),
			KEY post (blog_id,post_id),
			KEY created (created)
			) $charset;
			CREATE TABLE $spool (
			id bigint(20) unsigned NOT NULL AUTO_INCREMENT,
			priority tinyint(3) unsigned NOT NULL,
			made_at bigint(20) unsigned NOT NULL,
			commands longtext NOT NULL,
			PRIMARY KEY  (id),
			KEY place (priority,made_at,id)
			) $charset;"
		);
		update_site_option( self::OPTION, self::VERSION );
	}

	/**
	 * Leave nothing behind.
	 */
	public static function drop(): void {
		global $wpdb;
		foreach ( array( self::inbox(), self::spool() ) as $table ) {
			$wpdb->query( "DROP TABLE IF EXISTS $table" ); // phpcs:ignore WordPress.DB -- The table is ours, and its name cannot be a parameter before WordPress 6.2.
		}
		delete_site_option( self::OPTION );
	}
}
