<?php
/**
 * What went wrong lately.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Writes PHP's log, and keeps the last few lines for the settings page.
 *
 * The client calls it once per outage, and once an hour for anything else, so this is never much.
 */
final class Push_Server_Problems {

	private const OPTION = 'push_server_problems';
	private const KEPT   = 10;

	/**
	 * Write a line.
	 *
	 * @param string $level   Such as "error".
	 * @param string $message One sentence, or a few.
	 */
	public static function log( string $level, string $message ): void {
		$message = Push_Server_Settings::spelled( $message );
		error_log( "Push Server: $message" ); // phpcs:ignore WordPress.PHP.DevelopmentFunctions -- An owner has to find an outage in the log.
		$lines = array_slice( self::recent(), 0, self::KEPT - 1 );
		array_unshift( $lines, array( time(), $level, $message ) );
		if ( is_multisite() ) {
			update_site_option( self::OPTION, $lines );
		} else {
			update_option( self::OPTION, $lines, false );
		}
	}

	/**
	 * The last lines, newest first.
	 *
	 * @return list<array{int, string, string}> Time, level and message.
	 */
	public static function recent(): array {
		$lines = is_multisite() ? get_site_option( self::OPTION ) : get_option( self::OPTION );
		return is_array( $lines ) ? $lines : array();
	}

	/**
	 * Forget them.
	 */
	public static function forget(): void {
		delete_site_option( self::OPTION );
	}
}
