<?php
/**
 * "@name" in what people write.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Finds the users that a text mentions.
 */
final class Push_Server_Mentions {

	/** A text that names more people than this is no conversation. */
	private const LIMIT = 20;

	/**
	 * The members of this site whom a text names by the name in their author's address.
	 *
	 * @param string $text With or without HTML.
	 * @return int[]
	 */
	public static function in( string $text ): array {
		// A mail address or a path is no mention.
		preg_match_all( '~(?<![\w@./+-])@([a-z0-9][\w.-]{0,58}[a-z0-9]|[a-z0-9])~i', wp_strip_all_tags( $text ), $found );
		$names    = array_slice( array_unique( array_map( 'strtolower', $found[1] ) ), 0, self::LIMIT );
		$user_ids = array();
		foreach ( $names as $name ) {
			$user = get_user_by( 'slug', $name );
			if ( $user && is_user_member_of_blog( $user->ID ) ) {
				$user_ids[] = $user->ID;
			}
		}
		return $user_ids;
	}
}
