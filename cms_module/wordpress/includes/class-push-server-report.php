<?php
/**
 * What the settings page reports.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

/**
 * Shows what "Test connection" has found, and the last lines of the log.
 */
final class Push_Server_Report {

	/**
	 * What the test has found; the last line is written by the browser.
	 */
	public static function render_results(): void {
		echo '<table class="widefat striped push-server-results" aria-live="polite"><tbody>';
		// What was skipped hangs on something above that failed, and says nothing more.
		$checks = array_filter( Push_Server_Checks::run(), static fn ( $check ): bool => PushServer\CheckStatus::Skipped !== $check->status );
		foreach ( $checks as $name => $check ) {
			self::render_result( $name, Push_Server_Checks::title( $name ), $check->status->value, $check->message );
		}
		self::render_result( 'browser', __( 'This browser', 'push-server' ), 'waiting', __( 'A publication is on its way to this browser…', 'push-server' ) );
		echo '</tbody></table>';
		wp_enqueue_script( 'push-server-test', Push_Server_Bell::asset( 'test.js' ), array( 'push-server' ), PUSH_SERVER_VERSION, true );
		$words = array(
			'signs'    => self::signs(),
			/* translators: 1: number of milliseconds, 2: a technical word such as "websocket" */
			'heard'    => __( 'This browser has received a publication after %1$s ms, by %2$s.', 'push-server' ),
			'nothing'  => __( 'This browser has not received the publication.', 'push-server' ),
			'no_token' => __( 'This browser was given no token: the lines above say why.', 'push-server' ),
		);
		wp_add_inline_script( 'push-server-test', 'window.pushServerTest = ' . wp_json_encode( $words ) . ';', 'before' );
	}

	/**
	 * One line of the results.
	 *
	 * @param string $name    Of the check.
	 * @param string $title   The name for people.
	 * @param string $status  How it went.
	 * @param string $message A sentence.
	 */
	private static function render_result( string $name, string $title, string $status, string $message ): void {
		printf(
			'<tr id="push-server-check-%1$s" data-status="%2$s"><td>%3$s</td><th scope="row">%4$s</th><td>%5$s</td></tr>',
			esc_attr( $name ),
			esc_attr( $status ),
			esc_html( self::signs()[ $status ] ?? $status ),
			esc_html( $title ),
			esc_html( Push_Server_Settings::spelled( $message ) )
		);
	}

	/**
	 * The words for how a check went.
	 *
	 * @return array<string, string>
	 */
	private static function signs(): array {
		return array(
			'ok'      => __( 'OK', 'push-server' ),
			'warning' => __( 'Warning', 'push-server' ),
			'error'   => __( 'Error', 'push-server' ),
			'skipped' => __( 'Skipped', 'push-server' ),
			'waiting' => '…',
		);
	}

	/**
	 * The last lines of the log.
	 */
	public static function render_problems(): void {
		$lines = Push_Server_Problems::recent();
		if ( ! $lines ) {
			return;
		}
		echo '<h2>' . esc_html__( 'What happened lately', 'push-server' ) . '</h2><table class="widefat striped"><tbody>';
		foreach ( $lines as list( $time, $level, $message ) ) {
			printf(
				'<tr><td style="white-space: nowrap">%1$s</td><td>%2$s</td><td>%3$s</td></tr>',
				esc_html( wp_date( get_option( 'date_format' ) . ' ' . get_option( 'time_format' ), $time ) ),
				esc_html( $level ),
				esc_html( $message )
			);
		}
		echo '</tbody></table>';
	}
}
