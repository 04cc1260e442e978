<?php
/**
 * The settings: where each comes from, and whether they are any good.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

use PushServer\Config;
use PushServer\Exception\ConfigException;

/**
 * Reads and writes the settings.
 *
 * The four that connect (see CONNECTION) come from wp-config.php as PUSH_URL and so on, else from the
 * environment, else from the settings page. So secrets need not be in the database. A network of
 * sites has one set of settings, because it has one set of users.
 */
final class Push_Server_Settings {

	public const OPTION = 'push_server';

	/** What connects this site with its push server. */
	public const CONNECTION = array( 'url', 'api', 'token_key', 'api_key' );
	public const SECRETS    = array( 'token_key', 'api_key' );

	/** Fine settings of the client, which only wp-config.php or the environment can change. */
	private const FINE = array( 'spool_seconds', 'max_body', 'connect_timeout', 'timeout' );

	private const DEFAULTS = array(
		'url'       => '',
		'api'       => '',
		'token_key' => '',
		'api_key'   => '',
		'bridge'    => 'document.domain',
		'header'    => true,
		'bell'      => true,
		'comment'   => true,
		'reply'     => true,
		'mention'   => true,
		'post'      => true,
	);

	/**
	 * What the settings page has stored, completed by the defaults.
	 *
	 * @return array<string, mixed>
	 */
	public static function stored(): array {
		$stored = is_multisite() ? get_site_option( self::OPTION ) : get_option( self::OPTION );
		return array_merge( self::DEFAULTS, array_intersect_key( is_array( $stored ) ? $stored : array(), self::DEFAULTS ) );
	}

	/**
	 * Store what the settings page was given.
	 *
	 * @param array<string, mixed> $values By name.
	 */
	public static function store( array $values ): void {
		$values = array_intersect_key( $values, self::DEFAULTS );
		if ( is_multisite() ) {
			update_site_option( self::OPTION, $values );
		} else {
			// Loaded with all other options, so that no page needs a query for it.
			update_option( self::OPTION, $values, true );
		}
	}

	/**
	 * Where a setting that connects comes from.
	 *
	 * @param string $name One of CONNECTION.
	 * @return string "constant", "environment", "option", or "" if it is not set.
	 */
	public static function source( string $name ): string {
		if ( defined( self::constant( $name ) ) ) {
			return 'constant';
		}
		if ( false !== getenv( self::constant( $name ) ) ) {
			return 'environment';
		}
		return '' === ( self::stored()[ $name ] ?? '' ) ? '' : 'option';
	}

	/**
	 * The name of a setting in wp-config.php and in the environment.
	 *
	 * @param string $name As in CONNECTION.
	 */
	public static function constant( string $name ): string {
		return 'PUSH_' . strtoupper( $name );
	}

	/**
	 * The settings for the client.
	 *
	 * @param array<string, mixed>|null $stored Instead of what is stored, to try it.
	 * @return array<string, mixed>
	 */
	public static function connection( ?array $stored = null ): array {
		$stored ??= self::stored();
		$values   = array( 'name' => 'wordpress' );
		foreach ( array( ...self::CONNECTION, ...self::FINE ) as $name ) {
			$constant = self::constant( $name );
			$given    = defined( $constant ) ? constant( $constant ) : getenv( $constant );
			$given    = false === $given ? ( $stored[ $name ] ?? '' ) : $given;
			if ( '' !== $given ) {
				$values[ $name ] = $given;
			}
		}
		return $values;
	}

	/**
	 * Whether somebody has begun to set the plugin up. Until then it does nothing.
	 */
	public static function is_begun(): bool {
		return '' !== self::source( 'url' ) || '' !== self::source( 'api' );
	}

	/**
	 * What is wrong with the settings: a sentence for each, by name.
	 *
	 * @param array<string, mixed>|null $stored Instead of what is stored, to try it.
	 * @return array<string, string>
	 */
	public static function problems( ?array $stored = null ): array {
		try {
			Config::fromArray( self::connection( $stored ) );
			return array();
		} catch ( ConfigException $problem ) {
			return array_map( self::spelled( ... ), $problem->problems );
		}
	}

	/**
	 * A sentence of the client, with the settings called as the owner knows them.
	 *
	 * @param string $sentence Such as "'url' is missing.".
	 */
	public static function spelled( string $sentence ): string {
		$names = implode( '|', array( ...self::CONNECTION, ...self::FINE ) );
		return (string) preg_replace_callback(
			"/'($names)'/",
			static fn ( array $found ): string => self::constant( $found[1] ),
			$sentence
		);
	}
}
