<?php
/**
 * What a page asks for.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Answers at admin-ajax.php, which is never cached, and which lets no page of another site read.
 *
 * A page asks once, when it has been loaded: for a token and for the list, in one answer. So what a
 * cache may keep never holds either.
 */
final class Push_Server_Ajax {

	private const NONCE = 'push_server';

	/**
	 * A token and the list, for the user who is logged in.
	 */
	public static function state(): void {
		$session = Push_Server_Sessions::current();
		if ( null === $session ) {
			self::signed_out();
		}
		$user = wp_get_current_user();
		wp_send_json(
			array(
				'user'   => $user->ID,
				'server' => Push_Server_Client::get()->url(),
				'token'  => Push_Server_Client::token( $user, ...$session ),
				'nonce'  => wp_create_nonce( self::NONCE ),
			) + Push_Server_Inbox::of( $user->ID )
		);
	}

	/**
	 * Nobody is logged in.
	 */
	public static function signed_out(): void {
		wp_send_json( array( 'user' => 0 ), 401 );
	}

	/**
	 * The user has looked at the list: the other pages hear of it.
	 */
	public static function seen(): void {
		check_ajax_referer( self::NONCE, 'nonce' );
		$user_id = get_current_user_id();
		$seen    = Push_Server_Inbox::mark_seen( $user_id, absint( $_POST['seen'] ?? 0 ) );
		Push_Server_Client::publish(
			"user:$user_id",
			array(
				'type' => 'seen',
				'seen' => $seen,
			)
		);
		wp_send_json( array( 'seen' => $seen ) );
	}

	/**
	 * The settings page wants to hear from the push server.
	 */
	public static function ping(): void {
		check_ajax_referer( self::NONCE, 'nonce' );
		if ( ! current_user_can( Push_Server_Settings_Page::capability() ) ) {
			wp_send_json( null, 403 );
		}
		$ping = sanitize_key( wp_unslash( $_POST['ping'] ?? '' ) );
		Push_Server_Client::publish(
			'user:' . get_current_user_id(),
			array(
				'type' => 'ping',
				'ping' => $ping,
			)
		);
		wp_send_json( array( 'ping' => $ping ) );
	}
}
