<?php
/**
 * What happens to posts, and mentions in them.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Tells editors of what waits for review, authors of what others did to their posts, and users of
 * posts that mention them.
 *
 * Nobody is told of a status that did not last until the end of the request.
 */
final class Push_Server_Posts {

	/** Reviewers that are told of a post; a site with more has other ways to share the work. */
	private const REVIEWERS = 50;

	/**
	 * A post has another status.
	 *
	 * @param string  $status The new one.
	 * @param string  $old    The old one.
	 * @param WP_Post $post   The post.
	 */
	public static function changed( $status, $old, $post ): void {
		if ( $status === $old || ! Push_Server_Notifier::is_on() ) {
			return;
		}
		/**
		 * Filters the post types that are told of.
		 *
		 * @param string[] $types By default, all that have pages of their own.
		 */
		$types = (array) apply_filters( 'push_server_post_types', array_filter( get_post_types(), 'is_post_type_viewable' ) );
		if ( 'attachment' === $post->post_type || ! in_array( $post->post_type, $types, true ) ) {
			return;
		}
		$kind = self::kind( $status, $old );
		if ( '' !== $kind ) {
			Push_Server_Outbox::add( "post-$post->ID", array( self::class, 'tell' ), array( (int) $post->ID, $status, $kind, get_current_user_id() ) );
		}
	}

	/**
	 * A post is gone, and so is what it was named in.
	 *
	 * @param int $post_id The post.
	 */
	public static function gone( $post_id ): void {
		Push_Server_Inbox::forget_post( (int) $post_id );
	}

	/**
	 * The job.
	 *
	 * @param int    $post_id The post.
	 * @param string $status  What it had become.
	 * @param string $kind    What that means.
	 * @param int    $actor   Who did it; 0 if time did.
	 */
	public static function tell( int $post_id, string $status, string $kind, int $actor ): void {
		clean_post_cache( $post_id );
		$post = get_post( $post_id );
		if ( ! $post || $status !== $post->post_status ) {
			return;
		}
		$settings = Push_Server_Settings::stored();
		$title    = get_the_title( $post );
		$author   = (int) $post->post_author;
		$person   = $actor ? get_userdata( $actor ) : false;
		$sender   = $person ? $person->display_name : '';
		$about    = array(
			// The time is part of it: the same may happen to a post again.
			'source' => Push_Server_Notifier::source( $kind, "$post_id-" . strtotime( $post->post_modified_gmt . ' UTC' ) ),
			'post'   => $post,
			'sender' => $sender,
			'text'   => '',
			'url'    => self::url( $kind, $post ),
		);
		if ( $settings['post'] ) {
			$user_ids = array_diff( 'review' === $kind ? self::reviewers( $post ) : array( $author ), array( $actor, 0 ) );
			Push_Server_Notifier::tell( $user_ids, $kind, $about, static fn (): string => self::title( $kind, $sender, $title ) );
		}
		if ( $settings['mention'] && 'published' === $kind ) {
			self::tell_mentioned( $post, array( $author, $actor ), $about );
		}
	}

	/**
	 * Tell those whom a new post mentions.
	 *
	 * @param WP_Post              $post  The post.
	 * @param int[]                $known Who knows of it.
	 * @param array<string, mixed> $about The details.
	 */
	private static function tell_mentioned( WP_Post $post, array $known, array $about ): void {
		$author = get_userdata( (int) $post->post_author );
		$name   = $author ? $author->display_name : '';
		$title  = get_the_title( $post );
		$about  = array(
			// Once, however often it is published again.
			'source' => Push_Server_Notifier::source( 'mention', $post->ID ),
			'sender' => $name,
			// Not the_excerpt: what plugins put into it is made for whoever views it now.
			'text'   => '' === $post->post_excerpt ? $post->post_content : $post->post_excerpt,
		) + $about;
		Push_Server_Notifier::tell(
			array_diff( Push_Server_Mentions::in( $post->post_content ), $known ),
			'mention',
			$about,
			/* translators: 1: name of the author, 2: title of the post */
			static fn (): string => sprintf( __( '%1$s mentioned you in “%2$s”', 'push-server' ), $name, $title )
		);
	}

	/**
	 * What a change of the status means to somebody; "" if nothing.
	 *
	 * @param string $status The new one.
	 * @param string $old    The old one.
	 */
	private static function kind( string $status, string $old ): string {
		return match ( true ) {
			'pending' === $status                                                 => 'review',
			'publish' === $status                                                 => 'published',
			'trash' === $status && 'auto-draft' !== $old                          => 'trashed',
			'draft' === $status && in_array( $old, array( 'pending', 'publish', 'future' ), true ) => 'returned',
			default                                                               => '',
		};
	}

	/**
	 * Where to look at what happened.
	 *
	 * @param string  $kind What happened.
	 * @param WP_Post $post To what.
	 */
	private static function url( string $kind, WP_Post $post ): string {
		return match ( $kind ) {
			'published' => (string) get_permalink( $post ),
			'trashed'   => admin_url( "edit.php?post_status=trash&post_type=$post->post_type" ),
			default     => admin_url( "post.php?post=$post->ID&action=edit" ),
		};
	}

	/**
	 * Who can publish it.
	 *
	 * @param WP_Post $post The post.
	 * @return int[]
	 */
	private static function reviewers( WP_Post $post ): array {
		$type = get_post_type_object( $post->post_type );
		return array_map(
			'intval',
			get_users(
				array(
					'capability__in' => array( $type->cap->edit_others_posts ),
					'number'         => self::REVIEWERS,
					'fields'         => 'ID',
				)
			)
		);
	}

	/**
	 * The title, in the language that is set.
	 *
	 * @param string $kind   What happened.
	 * @param string $sender Who did it.
	 * @param string $title  To what.
	 */
	private static function title( string $kind, string $sender, string $title ): string {
		return match ( $kind ) {
			/* translators: 1: name of the author, 2: title of the post */
			'review'    => sprintf( __( '%1$s asks for a review of “%2$s”', 'push-server' ), $sender, $title ),
			/* translators: %s: title of the post */
			'published' => sprintf( __( 'Your post “%s” is published', 'push-server' ), $title ),
			/* translators: %s: title of the post */
			'trashed'   => sprintf( __( 'Your post “%s” was moved to the trash', 'push-server' ), $title ),
			/* translators: %s: title of the post */
			default     => sprintf( __( 'Your post “%s” is a draft again', 'push-server' ), $title ),
		};
	}
}
