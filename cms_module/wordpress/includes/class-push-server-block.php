<?php
/**
 * The block "Notifications".
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Renders the place of a bell or of a list. The script fills it for whoever is logged in.
 *
 * For themes without the admin bar, and for pages of members.
 */
final class Push_Server_Block {

	/**
	 * Make the block known.
	 */
	public static function register(): void {
		Push_Server_Bell::register_style();
		wp_register_script(
			'push-server-block',
			Push_Server_Bell::asset( 'block.js' ),
			array( 'wp-blocks', 'wp-block-editor', 'wp-components', 'wp-element', 'wp-i18n', 'wp-server-side-render' ),
			PUSH_SERVER_VERSION,
			true
		);
		wp_set_script_translations( 'push-server-block', 'push-server', dirname( PUSH_SERVER_FILE ) . '/languages' );
		register_block_type( dirname( PUSH_SERVER_FILE ) . '/block', array( 'render_callback' => array( self::class, 'render' ) ) );
	}

	/**
	 * The HTML, which is the same for all users.
	 *
	 * @param array<string, mixed> $attributes `show` is "list" or "bell".
	 */
	public static function render( $attributes ): string {
		$is_bell = 'bell' === ( $attributes['show'] ?? 'list' );
		if ( ! is_user_logged_in() ) {
			return $is_bell ? '' : self::wrap( self::invitation() );
		}
		if ( defined( 'REST_REQUEST' ) && REST_REQUEST ) {
			return self::wrap( self::preview( $is_bell ) );
		}
		return self::wrap( sprintf( '<div data-push-server="%s"></div>', $is_bell ? 'bell' : 'list' ) );
	}

	/**
	 * What visitors see.
	 */
	private static function invitation(): string {
		return sprintf(
			'<p><a href="%s">%s</a></p>',
			esc_url( wp_login_url( (string) get_permalink() ) ),
			esc_html__( 'Log in to see your notifications.', 'push-server' )
		);
	}

	/**
	 * What the editor shows, where nothing is live.
	 *
	 * @param bool $is_bell Or the list.
	 */
	private static function preview( bool $is_bell ): string {
		return $is_bell
			? '<span class="dashicons dashicons-bell"></span>'
			: sprintf( '<p class="pn-none">%s</p>', esc_html__( 'All who are logged in see their own notifications here.', 'push-server' ) );
	}

	/**
	 * With the classes of the block.
	 *
	 * @param string $html What is in it.
	 */
	private static function wrap( string $html ): string {
		return sprintf( '<div %s>%s</div>', get_block_wrapper_attributes(), $html );
	}
}
