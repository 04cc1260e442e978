<?php
/**
 * What a request leaves to be done when its visitor has the page.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Collects jobs, and does them after the response.
 *
 * A job looks at the database when the request has done all it had to do. So a comment that was
 * held back, or a post that was not saved after all, is seen as it is, and nobody is told of it.
 *
 * The order: the response goes to the visitor, what was published and revoked leaves, jobs run (they
 * decide who is told), and what they publish leaves in one call.
 */
final class Push_Server_Outbox {

	/**
	 * Jobs by what they are about, so that nothing is done twice.
	 *
	 * @var array<string, array{callable, array, int}>
	 */
	private static array $jobs = array();

	/**
	 * Whether the end of the request has been asked for.
	 *
	 * @var bool
	 */
	private static bool $is_open = false;

	/**
	 * Do this when the request ends, on the site that is the current one now.
	 *
	 * @param string   $about     What the job is about; a later job about the same replaces it.
	 * @param callable $job       What to do.
	 * @param array    $arguments What it is given.
	 */
	public static function add( string $about, callable $job, array $arguments = array() ): void {
		$site = get_current_blog_id();

		self::$jobs[ "$site-$about" ] = array( $job, $arguments, $site );
		self::open();
	}

	/**
	 * See to it that what is published is sent.
	 */
	public static function open(): void {
		if ( self::$is_open ) {
			return;
		}
		self::$is_open = true;
		// When core's own end has come (its buffers are flushed there), and behind what other
		// plugins have registered with PHP, which may still write to the visitor, or publish.
		$register = static fn () => register_shutdown_function( array( self::class, 'close' ) );
		if ( did_action( 'shutdown' ) ) {
			$register();
		} else {
			add_action( 'shutdown', $register, PHP_INT_MAX );
		}
	}

	/**
	 * Let the visitor go, do what is to be done, and send.
	 */
	public static function close(): void {
		self::finish_response();
		if ( self::$jobs ) {
			// A revocation must not be lost because a job comes to a bad end: no memory, or an exit.
			Push_Server_Client::flush();
		}
		// A job may leave another one.
		while ( self::$jobs ) {
			list( $job, $arguments, $site ) = array_shift( self::$jobs );
			self::run( $job, $arguments, $site );
		}
		Push_Server_Client::flush();
		// What comes even later has an end of its own.
		self::$is_open = false;
	}

	/**
	 * Do one job. Whatever goes wrong in it, the others are done.
	 *
	 * @param callable $job       What to do.
	 * @param array    $arguments What it is given.
	 * @param int      $site      Where.
	 */
	private static function run( callable $job, array $arguments, int $site ): void {
		$is_elsewhere = get_current_blog_id() !== $site;
		if ( $is_elsewhere ) {
			switch_to_blog( $site );
		}
		try {
			$job( ...$arguments );
		} catch ( Throwable $failure ) {
			Push_Server_Problems::log( 'error', 'A notification failed: ' . $failure->getMessage() );
		} finally {
			if ( $is_elsewhere ) {
				restore_current_blog();
			}
		}
	}

	/**
	 * The visitor has everything: close the connection, where PHP can.
	 */
	private static function finish_response(): void {
		if ( function_exists( 'session_status' ) && PHP_SESSION_ACTIVE === session_status() ) {
			// Else the visitor's next request would wait for the session.
			session_write_close();
		}
		foreach ( PushServer\Client::FINISHERS as $finisher ) {
			if ( function_exists( $finisher ) ) {
				$finisher();
				return;
			}
		}
	}
}
