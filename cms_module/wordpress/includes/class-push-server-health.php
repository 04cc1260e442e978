<?php
/**
 * Site Health.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

use PushServer\CheckStatus;

/**
 * Tells the owner what fails, and what would help, where WordPress collects such things.
 */
final class Push_Server_Health {

	private const ROUTE = array( 'push-server/v1', '/connection' );

	/**
	 * Add the tests.
	 *
	 * @param array<string, array> $tests By kind.
	 * @return array<string, array>
	 */
	public static function add_tests( $tests ) {
		if ( ! Push_Server_Settings::is_begun() ) {
			return $tests;
		}
		$tests['direct']['push_server_settings'] = array(
			'label' => __( 'Settings of Push Server', 'push-server' ),
			'test'  => array( self::class, 'settings' ),
		);
		// It may take seconds, so the page does not wait for it.
		$tests['async']['push_server_connection'] = array(
			'label'             => __( 'Connection to the push server', 'push-server' ),
			'test'              => rest_url( implode( self::ROUTE ) ),
			'has_rest'          => true,
			'async_direct_test' => array( self::class, 'connection' ),
		);
		return $tests;
	}

	/**
	 * The address at which the page asks for the second test.
	 */
	public static function add_route(): void {
		register_rest_route(
			self::ROUTE[0],
			self::ROUTE[1],
			array(
				'methods'             => 'GET',
				'callback'            => array( self::class, 'connection' ),
				'permission_callback' => static fn (): bool => current_user_can( 'view_site_health_checks' ),
			)
		);
	}

	/**
	 * The first test: no network is needed for it.
	 *
	 * @return array<string, mixed>
	 */
	public static function settings(): array {
		$problems = Push_Server_Settings::problems();
		if ( $problems ) {
			return self::result( 'settings', 'critical', __( 'The settings of Push Server are wrong', 'push-server' ), $problems );
		}
		$stored = array_filter( Push_Server_Settings::SECRETS, static fn ( string $name ): bool => 'option' === Push_Server_Settings::source( $name ) );
		if ( $stored ) {
			/* translators: %s: names of constants */
			$advice = __( 'Everything works. But whoever can read the database, or a backup of it, can act as this site: define %s in wp-config.php instead.', 'push-server' );
			$names  = implode( ', ', array_map( array( Push_Server_Settings::class, 'constant' ), $stored ) );
			return self::result( 'settings', 'recommended', __( 'The keys of Push Server are in the database', 'push-server' ), array( sprintf( $advice, $names ) ) );
		}
		return self::result( 'settings', 'good', __( 'The settings of Push Server are complete', 'push-server' ), array() );
	}

	/**
	 * The second test: everything that "Test connection" looks at.
	 *
	 * @return array<string, mixed>
	 */
	public static function connection(): array {
		$checks   = Push_Server_Checks::run();
		$errors   = array_filter( $checks, static fn ( $check ): bool => CheckStatus::Error === $check->status );
		$warnings = array_filter( $checks, static fn ( $check ): bool => CheckStatus::Warning === $check->status );
		$messages = array_map( static fn ( $check ): string => Push_Server_Settings::spelled( $check->message ), $errors + $warnings );
		if ( $errors ) {
			$first = __( 'The site works; what it has to tell waits until this is mended.', 'push-server' );
			return self::result( 'connection', 'critical', __( 'The push server does not get what this site publishes', 'push-server' ), array( $first, ...array_values( $messages ) ) );
		}
		if ( $warnings ) {
			return self::result( 'connection', 'recommended', __( 'The connection to the push server could be better', 'push-server' ), array_values( $messages ) );
		}
		return self::result( 'connection', 'good', __( 'The push server gets what this site publishes', 'push-server' ), array() );
	}

	/**
	 * For the tab "Info". No secrets.
	 *
	 * @param array<string, array> $info By section.
	 * @return array<string, array>
	 */
	public static function add_information( $info ) {
		$waiting = ( new Push_Server_Spool() )->waiting();
		$fields  = array();
		foreach ( Push_Server_Settings::CONNECTION as $name ) {
			$source          = Push_Server_Settings::source( $name );
			$is_secret       = in_array( $name, Push_Server_Settings::SECRETS, true );
			$value           = $is_secret ? '' : (string) ( Push_Server_Settings::connection()[ $name ] ?? '' );
			$fields[ $name ] = array(
				'label' => Push_Server_Settings::constant( $name ),
				'value' => '' === $source ? __( 'not set', 'push-server' ) : trim( "$value ($source)" ),
			);
		}
		$fields['waiting']                       = array(
			'label' => __( 'Batches that wait', 'push-server' ),
			'value' => $waiting ? $waiting[0] : __( 'The table is missing.', 'push-server' ),
		);
		$fields['sapi']                          = array(
			'label' => 'PHP',
			'value' => PHP_SAPI,
		);
		$info[ Push_Server_Settings_Page::SLUG ] = array(
			'label'  => __( 'Push Server', 'push-server' ),
			'fields' => $fields,
		);
		return $info;
	}

	/**
	 * A result as Site Health wants it.
	 *
	 * @param string   $name     Of the test.
	 * @param string   $status   "good", "recommended" or "critical".
	 * @param string   $label    The result in a few words.
	 * @param string[] $messages Sentences.
	 * @return array<string, mixed>
	 */
	private static function result( string $name, string $status, string $label, array $messages ): array {
		$about = __( 'Push Server shows your users at once what happens on this site.', 'push-server' );
		return array(
			'label'       => $label,
			'status'      => $status,
			'badge'       => array(
				'label' => __( 'Push Server', 'push-server' ),
				'color' => 'blue',
			),
			'description' => implode( '', array_map( static fn ( string $message ): string => '<p>' . esc_html( $message ) . '</p>', $messages ? array_values( $messages ) : array( $about ) ) ),
			'actions'     => current_user_can( Push_Server_Settings_Page::capability() )
				? sprintf( '<p><a href="%s">%s</a></p>', esc_url( Push_Server_Settings_Page::url() ), esc_html__( 'Settings of Push Server', 'push-server' ) )
				: '',
			'test'        => "push_server_$name",
		);
	}
}
