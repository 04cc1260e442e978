<?php
/**
 * The settings page.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Shows, checks and stores the settings, and tests the connection.
 *
 * The page handles its own form, because options.php stores no settings of a network. A secret that
 * is stored is never shown again.
 */
final class Push_Server_Settings_Page {

	public const SLUG    = 'push-server';
	private const ACTION = 'push_server_settings';

	/**
	 * What was entered and refused, to be entered better.
	 *
	 * @var array<string, mixed>|null
	 */
	private static ?array $entered = null;

	/**
	 * What is wrong with it, by name.
	 *
	 * @var array<string, string>
	 */
	private static array $problems = array();

	/**
	 * Whether the button "Test connection" was used.
	 *
	 * @var bool
	 */
	private static bool $is_test = false;

	/**
	 * Who may see and change the settings.
	 */
	public static function capability(): string {
		return is_multisite() ? 'manage_network_options' : 'manage_options';
	}

	/**
	 * The address of the page.
	 */
	public static function url(): string {
		return is_multisite() ? network_admin_url( 'settings.php?page=' . self::SLUG ) : admin_url( 'options-general.php?page=' . self::SLUG );
	}

	/**
	 * Add the page to the menu.
	 */
	public static function add(): void {
		$hook = add_submenu_page(
			is_multisite() ? 'settings.php' : 'options-general.php',
			__( 'Push Server', 'push-server' ),
			__( 'Push Server', 'push-server' ),
			self::capability(),
			self::SLUG,
			array( self::class, 'render' )
		);
		add_action( "load-$hook", array( self::class, 'handle' ) );
	}

	/**
	 * Add a link to the list of plugins.
	 *
	 * @param string[] $links HTML.
	 * @return string[]
	 */
	public static function add_link( $links ) {
		return array_merge( array( sprintf( '<a href="%s">%s</a>', esc_url( self::url() ), esc_html__( 'Settings', 'push-server' ) ) ), (array) $links );
	}

	/**
	 * Say where to go on after the activation.
	 */
	public static function ask_for_settings(): void {
		$screen = get_current_screen();
		if ( ! $screen || ! in_array( $screen->base, array( 'plugins', 'plugins-network' ), true ) ) {
			return;
		}
		if ( ! Push_Server_Settings::is_begun() && current_user_can( self::capability() ) ) {
			printf(
				'<div class="notice notice-info"><p>%s <a href="%s">%s</a></p></div>',
				esc_html__( 'Push Server does nothing until it knows your push server.', 'push-server' ),
				esc_url( self::url() ),
				esc_html__( 'Set it up', 'push-server' )
			);
		}
	}

	/**
	 * A form was sent.
	 */
	public static function handle(): void {
		if ( empty( $_POST ) ) { // phpcs:ignore WordPress.Security.NonceVerification -- Checked next.
			return;
		}
		check_admin_referer( self::ACTION );
		if ( ! current_user_can( self::capability() ) ) {
			wp_die( esc_html__( 'You may not change these settings.', 'push-server' ), 403 );
		}
		if ( isset( $_POST['test'] ) ) {
			self::$is_test = true;
			return;
		}
		$values         = self::entered();
		self::$problems = Push_Server_Settings::problems( $values );
		if ( self::$problems ) {
			self::$entered = $values;
			return;
		}
		Push_Server_Settings::store( $values );
		Push_Server_Problems::forget();
		wp_safe_redirect( add_query_arg( 'updated', 'true', self::url() ) );
		exit;
	}

	/**
	 * The settings as they were entered. A secret that is left empty stays what it is.
	 *
	 * @return array<string, mixed>
	 */
	private static function entered(): array {
		// phpcs:disable WordPress.Security.NonceVerification -- handle() has done that.
		$values = Push_Server_Settings::stored();
		foreach ( Push_Server_Settings::CONNECTION as $name ) {
			if ( ! is_string( $_POST[ $name ] ?? null ) ) {
				continue;
			}
			// Not changed, or a key would be another one: what is wrong is refused.
			$given = trim( wp_unslash( $_POST[ $name ] ) ); // phpcs:ignore WordPress.Security.ValidatedSanitizedInput
			if ( '' !== $given || ! in_array( $name, Push_Server_Settings::SECRETS, true ) ) {
				$values[ $name ] = $given;
			}
		}
		$values['bridge'] = 'postMessage' === sanitize_text_field( wp_unslash( $_POST['bridge'] ?? '' ) ) ? 'postMessage' : 'document.domain';
		foreach ( array( 'bell', 'comment', 'reply', 'mention', 'post', 'header' ) as $name ) {
			$values[ $name ] = isset( $_POST[ $name ] );
		}
		// phpcs:enable
		return $values;
	}

	/**
	 * The page.
	 */
	public static function render(): void {
		$values = self::$entered ?? Push_Server_Settings::stored();
		if ( null === self::$entered && Push_Server_Settings::is_begun() ) {
			self::$problems = Push_Server_Settings::problems();
		}
		echo '<div class="wrap"><h1>' . esc_html__( 'Push Server', 'push-server' ) . '</h1>';
		self::render_messages();
		echo '<form method="post" action="' . esc_url( self::url() ) . '">';
		wp_nonce_field( self::ACTION );
		self::render_connection( $values );
		self::render_choices( $values );
		submit_button();
		echo '</form>';
		self::render_test();
		Push_Server_Report::render_problems();
		echo '</div>';
	}

	/**
	 * How it went.
	 */
	private static function render_messages(): void {
		if ( isset( $_GET['updated'] ) && ! self::$is_test ) { // phpcs:ignore WordPress.Security.NonceVerification -- It only says so.
			echo '<div class="notice notice-success is-dismissible"><p>' . esc_html__( 'Settings saved. Test the connection next.', 'push-server' ) . '</p></div>';
		}
		if ( self::$problems ) {
			$what = null === self::$entered
				? __( 'Nothing is pushed, because of these settings:', 'push-server' )
				: __( 'Nothing was saved, because of these settings:', 'push-server' );
			echo '<div class="notice notice-error"><p>' . esc_html( $what ) . '</p><ul class="ul-disc">';
			foreach ( self::$problems as $problem ) {
				echo '<li>' . esc_html( $problem ) . '</li>';
			}
			echo '</ul></div>';
		}
	}

	/**
	 * What connects.
	 *
	 * @param array<string, mixed> $values The settings.
	 */
	private static function render_connection( array $values ): void {
		echo '<h2>' . esc_html__( 'Connection', 'push-server' ) . '</h2><p>';
		printf(
			/* translators: 1: a command, 2: name of a file */
			esc_html__( 'The command %1$s prints these four. Put them into %2$s, where they are safer than here, or enter them.', 'push-server' ),
			'<code>push-server init</code>',
			'<code>wp-config.php</code>'
		);
		echo '</p><table class="form-table" role="presentation">';
		self::render_field( 'url', __( 'Address for browsers', 'push-server' ), 'https://push.example.com', $values );
		self::render_field( 'api', __( 'Address for this site', 'push-server' ), 'http://127.0.0.1:6667', $values );
		self::render_field( 'token_key', __( 'Token key', 'push-server' ), '', $values );
		self::render_field( 'api_key', __( 'API key', 'push-server' ), 'whsec_…', $values );
		echo '</table>';
	}

	/**
	 * One setting that connects.
	 *
	 * @param string               $name    Which.
	 * @param string               $label   What it is called.
	 * @param string               $example What it may look like.
	 * @param array<string, mixed> $values  The settings.
	 */
	private static function render_field( string $name, string $label, string $example, array $values ): void {
		$source    = Push_Server_Settings::source( $name );
		$constant  = Push_Server_Settings::constant( $name );
		$is_fixed  = in_array( $source, array( 'constant', 'environment' ), true );
		$is_secret = in_array( $name, Push_Server_Settings::SECRETS, true );
		$problem   = self::$problems[ $name ] ?? '';
		printf(
			'<tr><th scope="row"><label for="push-server-%1$s">%2$s</label></th><td>',
			esc_attr( $name ),
			esc_html( $label )
		);
		printf(
			'<input id="push-server-%1$s" class="regular-text code" type="%2$s" name="%1$s" value="%3$s" placeholder="%4$s" autocomplete="off" spellcheck="false" aria-describedby="push-server-%1$s-help"%5$s%6$s>',
			esc_attr( $name ),
			$is_secret ? 'password' : 'text',
			esc_attr( $is_secret ? '' : (string) ( Push_Server_Settings::connection( $values )[ $name ] ?? '' ) ),
			esc_attr( $is_secret && '' !== $source ? '••••••••' : $example ),
			$is_fixed ? ' disabled' : '',
			$problem ? ' aria-invalid="true"' : ''
		);
		echo '<p class="description" id="push-server-' . esc_attr( $name ) . '-help">';
		if ( $problem ) {
			echo '<strong>' . esc_html( $problem ) . '</strong><br>';
		}
		printf(
			esc_html(
				match ( true ) {
					/* translators: %s: name of a constant */
					'constant' === $source             => __( '%s is set in wp-config.php.', 'push-server' ),
					/* translators: %s: name of a variable */
					'environment' === $source          => __( '%s is set in the environment of PHP.', 'push-server' ),
					/* translators: %s: name of a constant */
					$is_secret && 'option' === $source => __( 'It is stored in the database: leave the field empty to keep it, or define %s in wp-config.php.', 'push-server' ),
					/* translators: %s: name of a constant */
					default                            => __( 'Or define %s in wp-config.php.', 'push-server' ),
				}
			),
			'<code>' . esc_html( $constant ) . '</code>'
		);
		echo '</p></td></tr>';
	}

	/**
	 * What the owner may choose.
	 *
	 * @param array<string, mixed> $values The settings.
	 */
	private static function render_choices( array $values ): void {
		echo '<h2>' . esc_html__( 'Notifications', 'push-server' ) . '</h2><table class="form-table" role="presentation"><tr><th scope="row">' . esc_html__( 'Users are told of', 'push-server' ) . '</th><td><fieldset>';
		self::render_checkbox( 'comment', __( 'comments on their posts', 'push-server' ), $values );
		self::render_checkbox( 'reply', __( 'replies to their comments', 'push-server' ), $values );
		self::render_checkbox( 'mention', __( 'comments and posts that mention them as @name', 'push-server' ), $values );
		self::render_checkbox( 'post', __( 'posts that wait for their review, and what others do to their posts', 'push-server' ), $values );
		echo '</fieldset></td></tr><tr><th scope="row">' . esc_html__( 'Bell', 'push-server' ) . '</th><td>';
		self::render_checkbox( 'bell', __( 'in the admin bar', 'push-server' ), $values );
		echo '<p class="description">' . esc_html__( 'The block “Notifications” puts a bell or a list anywhere else.', 'push-server' ) . '</p>';
		echo '</td></tr></table><h2>' . esc_html__( 'Bridge', 'push-server' ) . '</h2><table class="form-table" role="presentation"><tr><th scope="row">' . esc_html__( 'Page and push server talk by', 'push-server' ) . '</th><td><fieldset>';
		$bridges = array(
			'document.domain' => __( 'document.domain, where the browser allows it, else messages. Every other subdomain that also opts in can act in the pages of your site; pages of the administration never opt in.', 'push-server' ),
			'postMessage'     => __( 'messages (postMessage). Choose this if you do not trust every subdomain.', 'push-server' ),
		);
		foreach ( $bridges as $bridge => $label ) {
			printf(
				'<label><input type="radio" name="bridge" value="%1$s"%2$s> %3$s</label><br>',
				esc_attr( $bridge ),
				checked( $values['bridge'], $bridge, false ),
				esc_html( $label )
			);
		}
		echo '</fieldset></td></tr><tr><th scope="row">' . esc_html__( 'Header', 'push-server' ) . '</th><td>';
		self::render_checkbox( 'header', __( 'send Origin-Agent-Cluster: ?0, which document.domain needs. Switch it off if your web server sends it: twice is ignored.', 'push-server' ), $values );
		echo '</td></tr></table>';
	}

	/**
	 * One choice.
	 *
	 * @param string               $name   Which.
	 * @param string               $label  What it means.
	 * @param array<string, mixed> $values The settings.
	 */
	private static function render_checkbox( string $name, string $label, array $values ): void {
		printf(
			'<label><input type="checkbox" name="%1$s" value="1"%2$s> %3$s</label><br>',
			esc_attr( $name ),
			checked( (bool) $values[ $name ], true, false ),
			esc_html( $label )
		);
	}

	/**
	 * The button "Test connection", and what it has found.
	 */
	private static function render_test(): void {
		echo '<h2 id="test">' . esc_html__( 'Test connection', 'push-server' ) . '</h2><p>' . esc_html__( 'Goes the whole way: from this site to the push server, and from there to this browser.', 'push-server' ) . '</p>';
		if ( self::$is_test ) {
			Push_Server_Report::render_results();
		}
		echo '<form method="post" action="' . esc_url( self::url() . '#test' ) . '">';
		wp_nonce_field( self::ACTION, '_wpnonce', true );
		submit_button( __( 'Test connection', 'push-server' ), 'secondary', 'test', false, Push_Server_Settings::is_begun() ? array() : array( 'disabled' => true ) );
		echo '</form>';
	}
}
