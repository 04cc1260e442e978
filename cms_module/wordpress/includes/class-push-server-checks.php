<?php
/**
 * What is between this site and its push server.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

use PushServer\Check;
use PushServer\CheckStatus;

/**
 * The checks of the client, and those that only WordPress can make.
 */
final class Push_Server_Checks {

	/** Seconds for which something may wait before an owner should know. */
	private const LONG = 15 * MINUTE_IN_SECONDS;

	/**
	 * All of them. Takes seconds at worst.
	 *
	 * @return array<string, Check>
	 */
	public static function run(): array {
		$home   = wp_parse_url( home_url() );
		$site   = ( $home['host'] ?? '' ) . ( isset( $home['port'] ) ? ":{$home['port']}" : '' );
		$checks = Push_Server_Client::get()->testConnection( $site );
		if ( count( $checks ) > 1 ) {
			$checks['spool']         = self::spool();
			$checks['mixed_content'] = self::mixed_content();
		}
		return $checks;
	}

	/**
	 * What a check is called on a page.
	 *
	 * @param string $name Of the check.
	 */
	public static function title( string $name ): string {
		return match ( $name ) {
			'settings' => __( 'Settings', 'push-server' ),
			'names' => __( 'Name of the push host', 'push-server' ),
			'port' => __( 'Port', 'push-server' ),
			'tls' => __( 'Certificate', 'push-server' ),
			'push_host' => __( 'The way to the push server', 'push-server' ),
			'agent_cluster' => 'document.domain',
			'frame' => __( 'Embedding', 'push-server' ),
			'token_key' => __( 'Token key', 'push-server' ),
			'forwarded' => __( "Visitor's address", 'push-server' ),
			'streaming' => __( 'Streaming', 'push-server' ),
			'api' => __( 'Internal API', 'push-server' ),
			'api_key' => __( 'API key', 'push-server' ),
			'api_private' => __( 'Privacy of the API', 'push-server' ),
			'clock' => __( 'Clocks', 'push-server' ),
			'versions' => __( 'Versions', 'push-server' ),
			'speed' => __( 'Speed', 'push-server' ),
			'spool' => __( 'What waits to be sent', 'push-server' ),
			'after_response' => __( 'Sending after the page', 'push-server' ),
			'mixed_content' => __( 'Mixed content', 'push-server' ),
			default => $name,
		};
	}

	/**
	 * What waits in the table.
	 */
	public static function spool(): Check {
		$waiting = ( new Push_Server_Spool() )->waiting();
		if ( null === $waiting ) {
			return new Check( 'spool', CheckStatus::Error, __( 'The table for what waits is not there. Deactivate the plugin and activate it again.', 'push-server' ) );
		}
		list( $count, $age ) = $waiting;
		if ( 0 === $count ) {
			return new Check( 'spool', CheckStatus::Ok, __( 'Nothing waits to be sent.', 'push-server' ) );
		}
		$message = sprintf(
			/* translators: 1: number of batches, 2: a time such as "5 mins" */
			_n( '%1$d batch waits to be sent, for %2$s.', '%1$d batches wait to be sent, the oldest for %2$s.', $count, 'push-server' ),
			$count,
			human_time_diff( time() - $age )
		);
		return new Check( 'spool', $age > self::LONG ? CheckStatus::Warning : CheckStatus::Ok, $message );
	}

	/**
	 * Whether browsers will let a page of this site use the push server.
	 */
	public static function mixed_content(): Check {
		$is_plain = 'https' !== wp_parse_url( (string) Push_Server_Client::get()->url(), PHP_URL_SCHEME );
		if ( $is_plain && 'https' === wp_parse_url( home_url(), PHP_URL_SCHEME ) ) {
			return new Check( 'mixed_content', CheckStatus::Error, __( 'This site is on https, so browsers refuse a push server on http: PUSH_URL must begin with https://.', 'push-server' ) );
		}
		return new Check( 'mixed_content', CheckStatus::Ok, __( 'Pages of this site may use this address.', 'push-server' ) );
	}
}
