<?php
/**
 * The bell in the admin bar, and the scripts behind it.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Puts the scripts into the pages of logged-in users, and into no others.
 *
 * What is put there is the same for all of them, in one language. So even a cache that keeps the
 * pages of logged-in users keeps nothing of one that another may not see.
 */
final class Push_Server_Bell {

	/**
	 * Whether this page takes part.
	 */
	public static function is_on(): bool {
		return is_user_logged_in() && Push_Server_Settings::is_begun() && ! is_customize_preview() && ! defined( 'IFRAME_REQUEST' );
	}

	/**
	 * Add the scripts.
	 */
	public static function enqueue(): void {
		if ( ! self::is_on() ) {
			return;
		}
		self::register_style();
		wp_enqueue_style( 'push-server' );
		wp_enqueue_script( 'push-server-push', self::asset( 'push.js' ), array(), PUSH_SERVER_VERSION, true );
		wp_enqueue_script( 'push-server-notifications', self::asset( 'notifications.js' ), array(), PUSH_SERVER_VERSION, true );
		wp_enqueue_script( 'push-server', self::asset( 'start.js' ), array( 'push-server-push', 'push-server-notifications' ), PUSH_SERVER_VERSION, true );
		$settings = array(
			'ajax'           => admin_url( 'admin-ajax.php', 'relative' ),
			'documentDomain' => is_admin() ? '' : Push_Server_Bridge::domain(),
			'origins'        => self::origins(),
			'words'          => self::words(),
		);
		wp_add_inline_script( 'push-server', 'window.pushServerSettings = ' . wp_json_encode( $settings ) . ';', 'before' );
	}

	/**
	 * The looks, which the block needs, too.
	 */
	public static function register_style(): void {
		wp_register_style( 'push-server-notifications', self::asset( 'notifications.css' ), array(), PUSH_SERVER_VERSION );
		wp_register_style( 'push-server', self::asset( 'wordpress.css' ), array( 'push-server-notifications' ), PUSH_SERVER_VERSION );
	}

	/**
	 * Add the place of the bell to the admin bar.
	 *
	 * @param WP_Admin_Bar $bar The bar.
	 */
	public static function add_node( $bar ): void {
		if ( self::is_on() && Push_Server_Settings::stored()['bell'] ) {
			$bar->add_node(
				array(
					'id'     => 'push-server',
					'parent' => 'top-secondary',
					'meta'   => array( 'html' => '<div data-push-server="bell"></div>' ),
				)
			);
		}
	}

	/**
	 * The address of a file in assets/.
	 *
	 * @param string $name The file.
	 */
	public static function asset( string $name ): string {
		return plugins_url( "assets/$name", PUSH_SERVER_FILE );
	}

	/**
	 * The origins of the other sites of this network, as far as notifications lead there.
	 *
	 * @return list<string>
	 */
	private static function origins(): array {
		if ( ! is_multisite() ) {
			return array();
		}
		$origins = array();
		foreach ( get_blogs_of_user( get_current_user_id() ) as $site ) {
			$origins[] = strtok( $site->siteurl, '/' ) . '//' . $site->domain;
		}
		return array_values( array_unique( $origins ) );
	}

	/**
	 * What the bell says, in the language of the page.
	 *
	 * @return array<string, string|array<string, string>>
	 */
	private static function words(): array {
		return array(
			'title'   => __( 'Notifications', 'push-server' ),
			'none'    => __( 'Nothing yet. What is new appears here by itself.', 'push-server' ),
			'count'   => array( 'zero' => __( 'Notifications, none new', 'push-server' ) ) + self::plural(
				/* translators: {count} stays as it is: a number is put there */
				static fn ( int $count ): string => _n( 'Notifications, {count} new', 'Notifications, {count} new', $count, 'push-server' )
			),
			/* translators: {title} stays as it is: the title of the notification is put there */
			'arrived' => __( 'New notification: {title}', 'push-server' ),
			'several' => self::plural(
				/* translators: {count} stays as it is: a number is put there */
				static fn ( int $count ): string => _n( '{count} new notification', '{count} new notifications', $count, 'push-server' )
			),
			'close'   => __( 'Dismiss', 'push-server' ),
			'fresh'   => __( 'New', 'push-server' ),
			/* translators: {sender} stays as it is: the name of a person is put there */
			'by'      => __( 'from {sender}', 'push-server' ),
		);
	}

	/**
	 * A text for each of the plural categories that browsers know, by a number that is in it in
	 * every language that has it.
	 *
	 * @param callable(int): string $text The text for a number.
	 * @return array<string, string>
	 */
	private static function plural( callable $text ): array {
		return array_map(
			$text,
			array(
				'one'   => 1,
				'two'   => 2,
				'few'   => 3,
				'many'  => 11,
				'other' => 100,
			)
		);
	}
}
