<?php
/**
 * The one client of this request.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

use PushServer\Client;

/**
 * Makes the client when it is first needed, and tells the outbox that there is something to send.
 *
 * Nothing here throws, and nothing here waits for the push server except drain().
 */
final class Push_Server_Client {

	/**
	 * The client, once it is made.
	 *
	 * @var Client|null
	 */
	private static ?Client $client = null;

	/**
	 * The client.
	 */
	public static function get(): Client {
		if ( null === self::$client ) {
			$log          = array( Push_Server_Problems::class, 'log' );
			self::$client = Client::create( Push_Server_Settings::connection(), $log, new Push_Server_Spool(), false );
		}
		return self::$client;
	}

	/**
	 * Forget the client, because the settings have changed.
	 */
	public static function forget(): void {
		self::$client = null;
	}

	/**
	 * A token for a page of a user, and with it the chance to send what waits.
	 *
	 * @param WP_User $user     Who is logged in.
	 * @param string  $session  The session, as Push_Server_Sessions names it.
	 * @param int     $lifetime Seconds.
	 * @return string|null Null if it cannot be issued.
	 */
	public static function token( WP_User $user, #[\SensitiveParameter] string $session, int $lifetime ): ?string {
		Push_Server_Outbox::open();
		/**
		 * Filters the channels that a user may receive, besides their own.
		 *
		 * @param string[] $channels Names, or prefixes followed by "*".
		 * @param WP_User  $user     The user.
		 */
		$subscribe = (array) apply_filters( 'push_server_channels', array(), $user );
		/**
		 * Filters the channels that a user may publish to from the browser.
		 *
		 * @param string[] $channels Names, or prefixes followed by "*".
		 * @param WP_User  $user     The user.
		 */
		$publish = (array) apply_filters( 'push_server_publish_channels', array(), $user );
		return self::get()->token( (string) $user->ID, $session, array_values( $subscribe ), array_values( $publish ), $lifetime, $user->display_name );
	}

	/**
	 * Publish when the request ends.
	 *
	 * @param string $channel The channel.
	 * @param mixed  $data    Anything that is JSON.
	 * @return string|null The id of the publication; null if it cannot be sent.
	 */
	public static function publish( string $channel, $data ): ?string {
		Push_Server_Outbox::open();
		return self::get()->publish( $channel, $data );
	}

	/**
	 * End a session when the request ends.
	 *
	 * @param string $session As it was given to token().
	 */
	public static function revoke_session( #[\SensitiveParameter] string $session ): void {
		Push_Server_Outbox::open();
		self::get()->revoke( sessionId: $session );
	}

	/**
	 * End all sessions of a user when the request ends: all tokens issued up to this second.
	 *
	 * @param int $user_id The user.
	 */
	public static function revoke_user( int $user_id ): void {
		Push_Server_Outbox::open();
		self::get()->revoke( user: (string) $user_id );
	}

	/**
	 * Send what was collected, and what waits. Ends in time.
	 */
	public static function flush(): void {
		self::get()->flush();
	}

	/**
	 * Send what waits, with time.
	 *
	 * @param float $seconds How long it may take.
	 */
	public static function drain( float $seconds ): void {
		if ( Push_Server_Settings::is_begun() ) {
			self::get()->drain( $seconds );
		}
	}
}
