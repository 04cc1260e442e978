<?php
/**
 * Personal data.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Takes part in the export and in the erasure of personal data.
 */
final class Push_Server_Privacy {

	/**
	 * Add the exporter.
	 *
	 * @param array<string, array> $exporters By name.
	 * @return array<string, array>
	 */
	public static function add_exporter( $exporters ) {
		$exporters['push-server'] = array(
			'exporter_friendly_name' => __( 'Notifications', 'push-server' ),
			'callback'               => array( self::class, 'export' ),
		);
		return $exporters;
	}

	/**
	 * Add the eraser.
	 *
	 * @param array<string, array> $erasers By name.
	 * @return array<string, array>
	 */
	public static function add_eraser( $erasers ) {
		$erasers['push-server'] = array(
			'eraser_friendly_name' => __( 'Notifications', 'push-server' ),
			'callback'             => array( self::class, 'erase' ),
		);
		return $erasers;
	}

	/**
	 * All notifications of a user. There are never so many that they need pages.
	 *
	 * @param string $email Whose.
	 * @return array{data: list<array>, done: bool}
	 */
	public static function export( $email ): array {
		$user = get_user_by( 'email', $email );
		$data = array();
		foreach ( $user ? Push_Server_Inbox::all_of( $user->ID ) : array() as $row ) {
			$data[] = array(
				'group_id'    => 'push-server',
				'group_label' => __( 'Notifications', 'push-server' ),
				'item_id'     => "push-server-$row->id",
				'data'        => array(
					array(
						'name'  => __( 'Time', 'push-server' ),
						'value' => gmdate( 'c', (int) $row->created ),
					),
					array(
						'name'  => __( 'Title', 'push-server' ),
						'value' => $row->title,
					),
					array(
						'name'  => __( 'Text', 'push-server' ),
						'value' => $row->text,
					),
				),
			);
		}
		return array(
			'data' => $data,
			'done' => true,
		);
	}

	/**
	 * Forget all notifications of a user.
	 *
	 * @param string $email Whose.
	 * @return array<string, mixed>
	 */
	public static function erase( $email ): array {
		$user = get_user_by( 'email', $email );
		return array(
			'items_removed'  => $user && Push_Server_Inbox::forget_user( $user->ID ) > 0,
			'items_retained' => false,
			'messages'       => array(),
			'done'           => true,
		);
	}

	/**
	 * What the owner's privacy policy may say.
	 */
	public static function suggest_text(): void {
		wp_add_privacy_policy_content(
			'Push Server',
			'<p>' . esc_html__( 'Notifications for our users are kept on this site for 90 days. While a user has a page open, their browser holds a connection to our own push server, which learns the number of the account and the display name, and keeps what it delivers for ten minutes. No third party is involved.', 'push-server' ) . '</p>'
		);
	}
}
