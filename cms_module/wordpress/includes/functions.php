<?php
/**
 * What themes and other plugins call.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

if ( ! function_exists( 'push_notify' ) ) {
	/**
	 * Notify users: it is in their list, and at once on the pages they have open.
	 *
	 * For instance:
	 *
	 *     push_notify( $order->get_customer_id(), 'Your order is on its way', array( 'url' => $url ) );
	 *
	 * It is kept and sent when the request ends, after the visitor has the page. Of HTML only the
	 * text is taken. Tell nobody of what they may not view: with `post`, this is checked, now and again
	 * whenever the list is shown.
	 *
	 * @param int|int[]|WP_User $to    Who is notified.
	 * @param string            $title What has happened, in one line.
	 * @param array             $args  {
	 *     Optional.
	 *
	 *     @type string $text   More about it.
	 *     @type string $url    Where a click leads: an address of this site.
	 *     @type string $sender Who did it, by the name that readers know.
	 *     @type int    $post   The post that it is about: users who may not view it are left out.
	 *     @type string $kind   What filters know it by; "custom" by default.
	 *     @type string $source 1 to 60 of A-Z a-z 0-9 _ -: a user is notified once of the same source.
	 * }
	 * @return bool False if there is nobody to notify, or no title.
	 */
	function push_notify( $to, string $title, array $args = array() ): bool { // phpcs:ignore WordPress.NamingConventions.PrefixAllGlobals -- The name that this plugin is known for.
		return Push_Server_Notifier::custom( $to, $title, $args );
	}
}

if ( ! function_exists( 'push_publish' ) ) {
	/**
	 * Publish anything that is JSON to a channel, after the response.
	 *
	 * Pages receive it with push.subscribe(); grant the channel by the filter push_server_channels.
	 *
	 * @param string $channel Such as "news" or "stock:17".
	 * @param mixed  $data    What the page needs to know, and nothing that a receiver may not see.
	 * @return bool False if it cannot be sent; the log says why.
	 */
	function push_publish( string $channel, $data ): bool { // phpcs:ignore WordPress.NamingConventions.PrefixAllGlobals -- The same.
		return null !== Push_Server_Client::publish( $channel, $data );
	}
}
