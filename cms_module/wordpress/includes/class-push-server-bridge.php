<?php
/**
 * How a page and the frame of the push server talk.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Decides about document.domain.
 *
 * With it, frame and page call each other directly; browsers want the header Origin-Agent-Cluster
 * on every page of the site for that. Where a browser refuses, the two send messages, which the
 * owner can also choose. Pages of the administration never set it, whatever is chosen: another
 * subdomain that also sets it could act in them.
 */
final class Push_Server_Bridge {

	/**
	 * The domain that page and frame share; "" if they send messages.
	 */
	public static function domain(): string {
		if ( 'document.domain' !== Push_Server_Settings::stored()['bridge'] ) {
			return '';
		}
		return self::shared(
			(string) wp_parse_url( home_url(), PHP_URL_HOST ),
			(string) wp_parse_url( (string) ( Push_Server_Settings::connection()['url'] ?? '' ), PHP_URL_HOST )
		);
	}

	/**
	 * Add the header to a page of the site.
	 *
	 * @param string[] $headers By name.
	 * @return string[]
	 */
	public static function add_header( $headers ) {
		if ( self::is_wanted() ) {
			$headers['Origin-Agent-Cluster'] = '?0';
		}
		return $headers;
	}

	/**
	 * Send it with a page that is not made by the theme: browsers treat an origin as one.
	 */
	public static function send_header(): void {
		if ( self::is_wanted() && ! headers_sent() ) {
			header( 'Origin-Agent-Cluster: ?0' );
		}
	}

	/**
	 * Whether the header is ours to send: browsers ignore it if the web server sends it, too.
	 */
	private static function is_wanted(): bool {
		return Push_Server_Settings::stored()['header'] && '' !== self::domain();
	}

	/**
	 * The last labels that two names share: at least two, and no address.
	 *
	 * @param string $one   A host.
	 * @param string $other Another one.
	 */
	private static function shared( string $one, string $other ): string {
		if ( filter_var( $one, FILTER_VALIDATE_IP ) ) {
			return '';
		}
		$labels = array();
		foreach ( array_map( null, array_reverse( explode( '.', $one ) ), array_reverse( explode( '.', $other ) ) ) as list( $here, $there ) ) {
			if ( null === $here || $here !== $there ) {
				break;
			}
			array_unshift( $labels, $here );
		}
		return count( $labels ) > 1 ? implode( '.', $labels ) : '';
	}
}
