<?php
/**
 * The notifications of all users.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Keeps notifications, and the number up to which a user has seen them.
 *
 * What happened to a post since then is looked at again whenever a list is shown: a notification is
 * no way to read what has become private.
 */
final class Push_Server_Inbox {

	/** The list that a page gets. */
	private const SHOWN = 50;

	/** Seconds for which a notification is kept. */
	private const KEPT = 90 * DAY_IN_SECONDS;

	private const SEEN = 'push_server_seen';

	// phpcs:disable WordPress.DB.DirectDatabaseQuery, WordPress.DB.PreparedSQL, WordPress.DB.PreparedSQLPlaceholders -- The tables are ours; their names cannot be parameters before WordPress 6.2.

	/**
	 * Keep a notification.
	 *
	 * @param array<string, int|string> $row `user_id`, `blog_id`, `post_id`, `source`, `kind`, `title`,
	 *                                       `text`, `sender` and `url`.
	 * @return array<string, mixed>|null The item as pages show it; null if the user had it already.
	 */
	public static function add( array $row ): ?array {
		global $wpdb;
		$row['created'] = time();
		$columns        = implode( ', ', array_keys( $row ) );
		$formats        = implode( ', ', array_map( static fn ( $value ): string => is_int( $value ) ? '%d' : '%s', $row ) );
		$table          = Push_Server_Tables::inbox();
		$added          = $wpdb->query( $wpdb->prepare( "INSERT IGNORE INTO $table ($columns) VALUES ($formats)", array_values( $row ) ) );
		return $added ? self::item( (object) ( array( 'id' => $wpdb->insert_id ) + $row ) ) : null;
	}

	/**
	 * The list of a user, newest first, without what may not be viewed any more.
	 *
	 * @param int $user_id Whose.
	 * @return array{items: list<array<string, mixed>>, seen: int}
	 */
	public static function of( int $user_id ): array {
		global $wpdb;
		$table = Push_Server_Tables::inbox();
		$rows  = (array) $wpdb->get_results( $wpdb->prepare( "SELECT * FROM $table WHERE user_id = %d ORDER BY id DESC LIMIT %d", $user_id, self::SHOWN ) );
		$ids   = wp_list_pluck( wp_list_filter( $rows, array( 'blog_id' => (string) get_current_blog_id() ) ), 'post_id' );
		_prime_post_caches( array_filter( array_map( 'intval', $ids ) ), false, false );
		$rows = array_filter( $rows, static fn ( object $row ): bool => self::is_viewable( $row, $user_id ) );
		return array(
			'items' => array_values( array_map( self::item( ... ), $rows ) ),
			'seen'  => (int) get_user_meta( $user_id, self::SEEN, true ),
		);
	}

	/**
	 * A user has looked at the list.
	 *
	 * @param int $user_id Whose.
	 * @param int $id      The highest id that was seen.
	 * @return int The highest one that was ever seen.
	 */
	public static function mark_seen( int $user_id, int $id ): int {
		global $wpdb;
		$table = Push_Server_Tables::inbox();
		// Never more than there is, or the next ones would not count.
		$id   = (int) $wpdb->get_var( $wpdb->prepare( "SELECT MAX(id) FROM $table WHERE user_id = %d AND id <= %d", $user_id, $id ) );
		$seen = max( $id, (int) get_user_meta( $user_id, self::SEEN, true ) );
		update_user_meta( $user_id, self::SEEN, $seen );
		return $seen;
	}

	/**
	 * Forget everything about a thing that is gone.
	 *
	 * @param string $source As it was given to add().
	 */
	public static function forget_source( string $source ): void {
		global $wpdb;
		$wpdb->delete( Push_Server_Tables::inbox(), array( 'source' => $source ), array( '%s' ) );
	}

	/**
	 * Forget everything about a post of this site that is gone.
	 *
	 * @param int $post_id The post.
	 */
	public static function forget_post( int $post_id ): void {
		global $wpdb;
		$where = array(
			'blog_id' => get_current_blog_id(),
			'post_id' => $post_id,
		);
		$wpdb->delete( Push_Server_Tables::inbox(), $where, array( '%d', '%d' ) );
	}

	/**
	 * Forget a user.
	 *
	 * @param int $user_id Who it was.
	 */
	public static function forget_user( int $user_id ): int {
		global $wpdb;
		delete_user_meta( $user_id, self::SEEN );
		return (int) $wpdb->delete( Push_Server_Tables::inbox(), array( 'user_id' => $user_id ), array( '%d' ) );
	}

	/**
	 * Forget what happened on a site that a user has left.
	 *
	 * @param int $user_id Who it was.
	 * @param int $blog_id The site.
	 */
	public static function forget_member( $user_id, $blog_id ): void {
		global $wpdb;
		$where = array(
			'user_id' => (int) $user_id,
			'blog_id' => (int) $blog_id,
		);
		$wpdb->delete( Push_Server_Tables::inbox(), $where, array( '%d', '%d' ) );
	}

	/**
	 * Forget a site of the network.
	 *
	 * @param WP_Site $site The site.
	 */
	public static function forget_site( $site ): void {
		global $wpdb;
		$wpdb->delete( Push_Server_Tables::inbox(), array( 'blog_id' => (int) $site->blog_id ), array( '%d' ) );
	}

	/**
	 * Forget what is old.
	 */
	public static function prune(): void {
		global $wpdb;
		$table = Push_Server_Tables::inbox();
		$wpdb->query( $wpdb->prepare( "DELETE FROM $table WHERE created < %d", time() - self::KEPT ) );
	}

	/**
	 * For the export of personal data: everything of a user.
	 *
	 * @param int $user_id Whose.
	 * @return list<object>
	 */
	public static function all_of( int $user_id ): array {
		global $wpdb;
		$table = Push_Server_Tables::inbox();
		return (array) $wpdb->get_results( $wpdb->prepare( "SELECT * FROM $table WHERE user_id = %d ORDER BY id", $user_id ) );
	}

	// phpcs:enable

	/**
	 * Whether a user may still view what a row is about.
	 *
	 * @param object $row     The row.
	 * @param int    $user_id The user.
	 */
	private static function is_viewable( object $row, int $user_id ): bool {
		if ( 0 === (int) $row->post_id ) {
			return true;
		}
		$is_elsewhere = get_current_blog_id() !== (int) $row->blog_id;
		if ( $is_elsewhere ) {
			switch_to_blog( (int) $row->blog_id );
		}
		$post = get_post( (int) $row->post_id );
		$may  = $post && Push_Server_Notifier::may_view( $user_id, $post );
		if ( $is_elsewhere ) {
			restore_current_blog();
		}
		return $may;
	}

	/**
	 * A row as pages show it.
	 *
	 * @param object $row The row.
	 * @return array<string, mixed>
	 */
	private static function item( object $row ): array {
		return array(
			'id'     => (int) $row->id,
			'kind'   => $row->kind,
			'title'  => $row->title,
			'text'   => $row->text,
			'sender' => $row->sender,
			'at'     => (int) $row->created,
			'url'    => $row->url,
		);
	}
}
