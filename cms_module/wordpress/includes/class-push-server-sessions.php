<?php
/**
 * A login session is a push session.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Ends what a token allowed, as soon as WordPress ends the session or changes the rights behind it.
 *
 * Rules:
 *
 * - The push server knows a session by a keyed hash of its verifier, which is how WordPress stores
 *   it. So "Log out everywhere else", or a plugin that ends somebody's session, is seen in the user
 *   meta where all of this happens, and the session's token itself is never needed.
 * - A password that changes makes every cookie of the user invalid without ending a session, so it
 *   ends all tokens; and so do roles, because a token lists what its user may receive. A page whose
 *   user is still logged in then gets a new token by itself.
 */
final class Push_Server_Sessions {

	private const META = 'session_tokens';

	/**
	 * Longest life of a token in seconds; the browser asks for the next one in time.
	 */
	private const LIFETIME = 3600;
	private const SHORTEST = 60;

	/**
	 * The verifiers that a user had before the meta changes.
	 *
	 * @var array<int, list<string>>
	 */
	private static array $before = array();

	/**
	 * Sessions that are ended already in this request, and users with the second in which they were:
	 * tokens that are issued later are not ended by that.
	 *
	 * @var array<string, int|true>
	 */
	private static array $ended = array();

	/**
	 * The session of this request.
	 *
	 * @return array{string, int}|null What names it, and the seconds for which a token may be given;
	 *                                 null if nobody is logged in by cookie.
	 */
	public static function current(): ?array {
		// wp_get_session_token() only reads the cookie; that somebody is logged in proves it good.
		$token = wp_get_session_token();
		if ( get_current_user_id() < 1 || '' === $token ) {
			return null;
		}
		$session = WP_Session_Tokens::get_instance( get_current_user_id() )->get( $token );
		$left    = (int) ( $session['expiration'] ?? 0 ) - time();
		return array( self::verifier( $token ), max( self::SHORTEST, min( self::LIFETIME, $left ) ) );
	}

	/**
	 * A user's meta is about to change: remember the sessions.
	 *
	 * @param int    $meta_id Not needed.
	 * @param int    $user_id Whose.
	 * @param string $key     Which.
	 */
	public static function before_update( $meta_id, $user_id, $key ): void {
		if ( self::META === $key ) {
			self::$before[ (int) $user_id ] = self::stored( (int) $user_id );
		}
	}

	/**
	 * It has changed: end the sessions that are gone.
	 *
	 * @param int    $meta_id Not needed.
	 * @param int    $user_id Whose.
	 * @param string $key     Which.
	 * @param mixed  $value   What it is now.
	 */
	public static function after_update( $meta_id, $user_id, $key, $value ): void {
		if ( self::META === $key ) {
			self::end_missing( (int) $user_id, array_keys( is_array( $value ) ? $value : array() ) );
		}
	}

	/**
	 * A user's meta is about to go: remember the sessions, or everybody's.
	 *
	 * @param int[]  $meta_ids The rows.
	 * @param int    $user_id  Whose; 0 if those of all users go.
	 * @param string $key      Which.
	 */
	public static function before_delete( $meta_ids, $user_id, $key ): void {
		if ( self::META !== $key ) {
			return;
		}
		$user_ids = $user_id ? array( (int) $user_id ) : self::owners( (array) $meta_ids );
		foreach ( $user_ids as $id ) {
			self::$before[ $id ] = self::stored( $id );
		}
	}

	/**
	 * It is gone: end all of them.
	 *
	 * @param int[]  $meta_ids Not needed.
	 * @param int    $user_id  Whose; 0 if those of all users went.
	 * @param string $key      Which.
	 */
	public static function after_delete( $meta_ids, $user_id, $key ): void {
		if ( self::META === $key ) {
			foreach ( $user_id ? array( (int) $user_id ) : array_keys( self::$before ) as $id ) {
				self::end_missing( $id, array() );
			}
		}
	}

	/**
	 * This browser forgets its cookie: its session is over, wherever sessions are kept.
	 */
	public static function logout(): void {
		$session = self::current();
		if ( $session ) {
			self::end_session( $session[0] );
		}
	}

	/**
	 * A profile was saved.
	 *
	 * @param int     $user_id Whose.
	 * @param WP_User $old     What it was.
	 */
	public static function profile_update( $user_id, $old ): void {
		$user = get_userdata( (int) $user_id );
		if ( $user && $old->user_pass !== $user->user_pass ) {
			self::end_all( (int) $user_id );
		}
	}

	/**
	 * A password was reset by mail.
	 *
	 * @param WP_User $user Whose.
	 */
	public static function password_reset( $user ): void {
		self::end_all( $user->ID );
	}

	/**
	 * A password was set in some other way.
	 *
	 * @param string $password Not needed.
	 * @param int    $user_id  Whose.
	 */
	public static function password_set( #[\SensitiveParameter] $password, $user_id ): void {
		self::end_all( (int) $user_id );
	}

	/**
	 * A user's roles were replaced.
	 *
	 * @param int      $user_id Whose.
	 * @param string   $role    The new one.
	 * @param string[] $old     The old ones; none if the user has just registered.
	 */
	public static function role_set( $user_id, $role, $old ): void {
		if ( $old && array( $role ) !== array_values( $old ) ) {
			self::end_all( (int) $user_id );
		}
	}

	/**
	 * A user is gone.
	 *
	 * @param int $user_id Who it was.
	 */
	public static function user_deleted( $user_id ): void {
		if ( ! is_multisite() || 'wpmu_delete_user' === current_action() ) {
			Push_Server_Inbox::forget_user( (int) $user_id );
		}
		self::end_all( (int) $user_id );
	}

	/**
	 * End all sessions of a user.
	 *
	 * @param int $user_id Whose.
	 */
	public static function end_all( $user_id ): void {
		if ( Push_Server_Settings::is_begun() && time() !== ( self::$ended[ "user-$user_id" ] ?? 0 ) ) {
			self::$ended[ "user-$user_id" ] = time();
			Push_Server_Client::revoke_user( (int) $user_id );
		}
	}

	/**
	 * End one session.
	 *
	 * @param string $verifier The session.
	 */
	private static function end_session( #[\SensitiveParameter] string $verifier ): void {
		if ( Push_Server_Settings::is_begun() && ! isset( self::$ended[ "session-$verifier" ] ) ) {
			self::$ended[ "session-$verifier" ] = true;
			Push_Server_Client::revoke_session( $verifier );
		}
	}

	/**
	 * End the sessions that a user had and has no longer.
	 *
	 * @param int      $user_id Whose.
	 * @param string[] $left    The verifiers that are left.
	 */
	private static function end_missing( int $user_id, array $left ): void {
		foreach ( array_diff( self::$before[ $user_id ] ?? array(), array_map( 'strval', $left ) ) as $verifier ) {
			self::end_session( $verifier );
		}
		unset( self::$before[ $user_id ] );
	}

	/**
	 * The verifiers of a user's sessions.
	 *
	 * @param int $user_id Whose.
	 * @return list<string>
	 */
	private static function stored( int $user_id ): array {
		$sessions = get_user_meta( $user_id, self::META, true );
		return array_map( 'strval', array_keys( is_array( $sessions ) ? $sessions : array() ) );
	}

	/**
	 * The users to whom rows of meta belong.
	 *
	 * @param int[] $meta_ids The rows.
	 * @return list<int>
	 */
	private static function owners( array $meta_ids ): array {
		global $wpdb;
		$list = implode( ',', array_map( 'intval', $meta_ids ) );
		return $list
			? array_map( 'intval', $wpdb->get_col( "SELECT user_id FROM $wpdb->usermeta WHERE umeta_id IN ($list)" ) ) // phpcs:ignore WordPress.DB -- Integers; and it is asked once, before they go.
			: array();
	}

	/**
	 * How WordPress stores a session.
	 *
	 * @param string $token From the cookie.
	 */
	private static function verifier( #[\SensitiveParameter] string $token ): string {
		return hash( 'sha256', $token );
	}
}
