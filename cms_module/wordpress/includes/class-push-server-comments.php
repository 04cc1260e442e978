<?php
/**
 * Comments, replies, and mentions in them.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Tells of comments that are approved: at once, or when a moderator approves them.
 */
final class Push_Server_Comments {

	/**
	 * A comment was written, on whatever way. transition_comment_status is not called for it.
	 *
	 * @param int        $comment_id The comment.
	 * @param WP_Comment $comment    The same.
	 */
	public static function posted( $comment_id, $comment ): void {
		if ( '1' === (string) $comment->comment_approved ) {
			self::add( (int) $comment_id );
		}
	}

	/**
	 * A comment was approved, held back, or thrown away.
	 *
	 * @param string     $status  The new one.
	 * @param string     $old     The old one.
	 * @param WP_Comment $comment The comment.
	 */
	public static function moderated( $status, $old, $comment ): void {
		if ( 'approved' === $status ) {
			self::add( (int) $comment->comment_ID );
		} else {
			self::gone( (int) $comment->comment_ID );
		}
	}

	/**
	 * A comment is not to be read any more, and neither is what it was quoted in.
	 *
	 * @param int $comment_id The comment.
	 */
	public static function gone( $comment_id ): void {
		Push_Server_Inbox::forget_source( Push_Server_Notifier::source( 'comment', (int) $comment_id ) );
	}

	/**
	 * Tell of it when the request ends.
	 *
	 * @param int $comment_id The comment.
	 */
	private static function add( int $comment_id ): void {
		if ( Push_Server_Notifier::is_on() ) {
			Push_Server_Outbox::add( "comment-$comment_id", array( self::class, 'tell' ), array( $comment_id ) );
		}
	}

	/**
	 * The job: whoever has several reasons to be told is told once, for the nearest of them.
	 *
	 * @param int $comment_id The comment.
	 */
	public static function tell( int $comment_id ): void {
		clean_comment_cache( $comment_id );
		$comment = get_comment( $comment_id );
		$post    = $comment ? get_post( (int) $comment->comment_post_ID ) : null;
		/**
		 * Filters the types of comments that are told of. Other plugins use comments for what is not
		 * meant for readers, such as the notes on an order.
		 *
		 * @param string[] $types "comment" is what people write.
		 */
		$types = (array) apply_filters( 'push_server_comment_types', array( 'comment' ) );
		if ( ! $post || '1' !== $comment->comment_approved || ! in_array( get_comment_type( $comment ), $types, true ) ) {
			return;
		}
		$settings = Push_Server_Settings::stored();
		$sender   = get_comment_author( $comment );
		$title    = get_the_title( $post );
		$about    = array(
			'source' => Push_Server_Notifier::source( 'comment', $comment_id ),
			'post'   => $post,
			'sender' => $sender,
			'text'   => $comment->comment_content,
			'url'    => get_comment_link( $comment ),
		);
		$told     = array( (int) $comment->user_id, 0 );

		foreach ( self::reasons( $comment, $post ) as $kind => $user_ids ) {
			$user_ids = array_diff( $user_ids, $told );
			$told     = array( ...$told, ...$user_ids );
			if ( $user_ids && $settings[ $kind ] ) {
				Push_Server_Notifier::tell( $user_ids, $kind, $about, static fn (): string => self::title( $kind, $sender, $title ) );
			}
		}
	}

	/**
	 * Who has which reason to be told, the nearest first.
	 *
	 * @param WP_Comment $comment The comment.
	 * @param WP_Post    $post    What it is on.
	 * @return array<string, int[]>
	 */
	private static function reasons( WP_Comment $comment, WP_Post $post ): array {
		$parent = $comment->comment_parent ? get_comment( (int) $comment->comment_parent ) : null;
		return array(
			'reply'   => $parent ? array( (int) $parent->user_id ) : array(),
			'mention' => Push_Server_Mentions::in( $comment->comment_content ),
			'comment' => array( (int) $post->post_author ),
		);
	}

	/**
	 * The title, in the language that is set.
	 *
	 * @param string $kind   The reason.
	 * @param string $sender Who wrote.
	 * @param string $title  On what.
	 */
	private static function title( string $kind, string $sender, string $title ): string {
		return match ( $kind ) {
			/* translators: 1: name of the person who wrote, 2: title of the post */
			'reply'   => sprintf( __( '%1$s replied to your comment on “%2$s”', 'push-server' ), $sender, $title ),
			/* translators: 1: name of the person who wrote, 2: title of the post */
			'mention' => sprintf( __( '%1$s mentioned you in a comment on “%2$s”', 'push-server' ), $sender, $title ),
			/* translators: 1: name of the person who wrote, 2: title of the post */
			default   => sprintf( __( '%1$s commented on “%2$s”', 'push-server' ), $sender, $title ),
		};
	}
}
