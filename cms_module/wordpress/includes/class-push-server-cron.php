<?php
/**
 * What is done without a visitor.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Sends what waits, when no visitor's request has done it, and clears old notifications away.
 */
final class Push_Server_Cron {

	private const DAILY = 'push_server_daily';
	private const DRAIN = 'push_server_drain';

	/** Seconds until what waits is tried again, and for which one try may go on. */
	private const PAUSE   = 60;
	private const SECONDS = 10.0;

	/**
	 * Have the daily work done: once for a whole network.
	 */
	public static function start(): void {
		if ( is_main_site() && ! wp_next_scheduled( self::DAILY ) ) {
			wp_schedule_event( time() + HOUR_IN_SECONDS, 'daily', self::DAILY );
		}
	}

	/**
	 * No more of it.
	 */
	public static function stop(): void {
		wp_unschedule_hook( self::DAILY );
		wp_unschedule_hook( self::DRAIN );
	}

	/**
	 * Something waits: have it sent, even if nobody visits a page that does.
	 */
	public static function soon(): void {
		if ( ! wp_next_scheduled( self::DRAIN ) ) {
			wp_schedule_single_event( time() + self::PAUSE, self::DRAIN );
		}
	}

	/**
	 * Send what waits.
	 */
	public static function drain(): void {
		Push_Server_Client::drain( self::SECONDS );
		$waiting = ( new Push_Server_Spool() )->waiting();
		if ( $waiting && $waiting[0] > 0 ) {
			self::soon();
		}
	}

	/**
	 * Forget what is old.
	 */
	public static function daily(): void {
		Push_Server_Inbox::prune();
	}
}
