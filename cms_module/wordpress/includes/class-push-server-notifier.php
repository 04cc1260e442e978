<?php
/**
 * From something that happened to the users who are told of it.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Tells users: keeps a notification for each, and publishes it to their channel.
 *
 * Rules:
 *
 * - Nobody is told of a post that they may not view, nor of what they did themselves.
 * - All users read their own language.
 * - What is kept and published is plain text.
 */
final class Push_Server_Notifier {

	private const TITLE_LENGTH  = 200;
	private const TEXT_LENGTH   = 300;
	private const SENDER_LENGTH = 100;

	/**
	 * Whether anybody is told of anything: not of what an import brings back from years ago.
	 */
	public static function is_on(): bool {
		return Push_Server_Settings::is_begun() && ! ( defined( 'WP_IMPORTING' ) && WP_IMPORTING );
	}

	/**
	 * Tell users what happened. Called after the response.
	 *
	 * @param int[]                $user_ids Whom.
	 * @param string               $kind     What: "comment", "reply", "mention", "review" and so on.
	 * @param array<string, mixed> $about    `source`, `post` (WP_Post or null), `sender`, `text`, `url`.
	 * @param callable(): string   $title    The title in the language of whoever reads it.
	 */
	public static function tell( array $user_ids, string $kind, array $about, callable $title ): void {
		$post = $about['post'] ?? null;
		/**
		 * Filters who is told.
		 *
		 * @param int[]  $user_ids The users.
		 * @param string $kind     What happened.
		 * @param array  $about    The details: source, post, sender, text, url.
		 */
		$user_ids = (array) apply_filters( 'push_server_recipients', $user_ids, $kind, $about );
		foreach ( array_unique( array_map( 'intval', $user_ids ) ) as $user_id ) {
			$user = get_userdata( $user_id );
			if ( ! $user || ( is_multisite() && is_user_spammy( $user ) ) || ( $post && ! self::may_view( $user_id, $post ) ) ) {
				continue;
			}
			$switched = switch_to_locale( get_user_locale( $user_id ) );
			$words    = self::fit(
				array(
					'title'  => self::plain( $title() ),
					'text'   => self::plain( $about['text'] ),
					'sender' => self::plain( $about['sender'] ),
				) + $about
			);
			if ( $switched ) {
				restore_previous_locale();
			}
			/**
			 * Filters a notification before it is kept and published.
			 *
			 * @param string[]|false $words   `title`, `text`, `sender` and `url`; false: tell nothing.
			 * @param string         $kind    What happened.
			 * @param int            $user_id Who is told.
			 * @param array          $about   The details: source, post, sender, text, url.
			 */
			$words = apply_filters( 'push_server_notification', $words, $kind, $user_id, $about );
			if ( is_array( $words ) ) {
				self::deliver(
					$user_id,
					array(
						'user_id' => $user_id,
						'blog_id' => get_current_blog_id(),
						'post_id' => $post ? $post->ID : 0,
						'source'  => $about['source'],
						'kind'    => $kind,
					) + self::fit( $words )
				);
			}
		}
	}

	/**
	 * See push_notify().
	 *
	 * @param int|int[]|WP_User    $to    Whom.
	 * @param string               $title What has happened.
	 * @param array<string, mixed> $args  See there.
	 */
	public static function custom( $to, string $title, array $args ): bool {
		$user_ids = array_filter( array_map( 'intval', $to instanceof WP_User ? array( $to->ID ) : (array) $to ) );
		if ( ! $user_ids || '' === trim( $title ) || ! self::is_on() ) {
			return false;
		}
		$kind   = sanitize_key( $args['kind'] ?? 'custom' );
		$source = (string) ( $args['source'] ?? '' );
		$source = preg_match( '/\A[A-Za-z0-9_-]{1,60}\z/', $source ) ? $source : wp_generate_uuid4();
		if ( strtolower( $source ) !== $source ) {
			// The database takes "a" and "A" for the same.
			$source = md5( $source );
		}
		$about = array(
			'source' => self::source( $kind, $source ),
			'post'   => (int) ( $args['post'] ?? 0 ),
			'sender' => (string) ( $args['sender'] ?? '' ),
			'text'   => (string) ( $args['text'] ?? '' ),
			'url'    => (string) ( $args['url'] ?? '' ),
		);
		Push_Server_Outbox::add( $about['source'] . '-' . md5( implode( ' ', $user_ids ) ), array( self::class, 'tell_custom' ), array( $user_ids, $kind, $about, $title ) );
		return true;
	}

	/**
	 * The job of custom().
	 *
	 * @param int[]                $user_ids Whom.
	 * @param string               $kind     As the caller named it.
	 * @param array<string, mixed> $about    The details, with the post's id.
	 * @param string               $title    In the caller's language.
	 */
	public static function tell_custom( array $user_ids, string $kind, array $about, string $title ): void {
		if ( $about['post'] ) {
			$about['post'] = get_post( $about['post'] );
			if ( ! $about['post'] ) {
				return;
			}
		}
		self::tell( $user_ids, $kind, array( 'post' => $about['post'] ? $about['post'] : null ) + $about, static fn (): string => $title );
	}

	/**
	 * Whether a user may view a post, now.
	 *
	 * @param int     $user_id The user.
	 * @param WP_Post $post    The post.
	 */
	public static function may_view( int $user_id, WP_Post $post ): bool {
		if ( '' !== $post->post_password ) {
			// Who knows the password is not known here.
			$may = user_can( $user_id, 'edit_post', $post->ID );
		} else {
			$may = is_post_publicly_viewable( $post ) || user_can( $user_id, 'read_post', $post->ID );
		}
		/**
		 * Filters whether a user may view a post; for plugins that restrict content.
		 *
		 * @param bool    $may     As WordPress sees it.
		 * @param int     $user_id The user.
		 * @param WP_Post $post    The post.
		 */
		return (bool) apply_filters( 'push_server_may_view', $may, $user_id, $post );
	}

	/**
	 * What a notification is about, in a word that is unique in the network.
	 *
	 * @param string     $kind What happened.
	 * @param int|string $id   To what.
	 */
	public static function source( string $kind, $id ): string {
		return substr( get_current_blog_id() . "-$kind-$id", 0, 100 );
	}

	/**
	 * The text in HTML.
	 *
	 * @param string $html What somebody wrote.
	 */
	private static function plain( string $html ): string {
		return html_entity_decode( wp_strip_all_tags( strip_shortcodes( $html ), true ), ENT_QUOTES | ENT_HTML5, 'UTF-8' );
	}

	/**
	 * On one line, and not too long.
	 *
	 * @param string $text   Plain text.
	 * @param int    $length Characters.
	 */
	private static function line( string $text, int $length ): string {
		// Also what turns the direction of the text around it. What joins letters and emoji stays.
		$text = (string) preg_replace( '/[\p{Cc}\s\x{202A}-\x{202E}\x{2066}-\x{2069}]+/u', ' ', wp_check_invalid_utf8( $text, true ) );
		$text = trim( $text );
		return mb_strlen( $text ) > $length ? rtrim( mb_substr( $text, 0, $length - 1 ) ) . '…' : $text;
	}

	/**
	 * What a notification says, as it fits into a line and into the table.
	 *
	 * @param array<string, mixed> $words Plain text.
	 * @return array{title: string, text: string, sender: string, url: string}
	 */
	private static function fit( array $words ): array {
		return array(
			'title'  => self::line( (string) ( $words['title'] ?? '' ), self::TITLE_LENGTH ),
			'text'   => self::line( (string) ( $words['text'] ?? '' ), self::TEXT_LENGTH ),
			'sender' => self::line( (string) ( $words['sender'] ?? '' ), self::SENDER_LENGTH ),
			'url'    => esc_url_raw( (string) ( $words['url'] ?? '' ) ),
		);
	}

	/**
	 * Keep it, and publish it.
	 *
	 * @param int                  $user_id Whom.
	 * @param array<string, mixed> $row     The row.
	 */
	private static function deliver( int $user_id, array $row ): void {
		$item = Push_Server_Inbox::add( $row );
		if ( null === $item ) {
			return;
		}
		Push_Server_Client::publish( "user:$user_id", array( 'type' => 'notification' ) + $item );
		/**
		 * Fires when a user has been told something; for instance to send a mail to whoever is away.
		 *
		 * @param array $item    What the user was told: id, kind, title, text, sender, at, url.
		 * @param int   $user_id The user.
		 */
		do_action( 'push_server_notified', $item, $user_id );
	}
}
