<?php
/**
 * What waits for the push server, in the database.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

use PushServer\Command;
use PushServer\Exception\SpoolException;
use PushServer\Store\Spool;

/**
 * A spool in a table: a row per batch, a line per command.
 *
 * A table, because WordPress has no directory that is writable, private and shared by all of its
 * web servers. Revocations have priority 0 and come out first; all others in the order they were made.
 */
final class Push_Server_Spool implements Spool {

	private const REVOCATION  = 0;
	private const PUBLICATION = 1;

	/** Batches of a long outage; beyond that, the oldest publications go. */
	private const ROWS_LIMIT = 20_000;

	/** Rows looked at in one take(). */
	private const ROWS_TAKEN = 200;

	// phpcs:disable WordPress.DB.DirectDatabaseQuery, WordPress.DB.PreparedSQL -- A queue cannot be cached, and its table's name cannot be a parameter before WordPress 6.2.

	/**
	 * Keep commands for later.
	 *
	 * @param Command[] $commands In their order.
	 * @throws SpoolException If they cannot be kept.
	 */
	public function put( array $commands ): void {
		global $wpdb;
		foreach ( array( self::REVOCATION, self::PUBLICATION ) as $priority ) {
			$chosen = array_filter( $commands, static fn ( Command $command ): bool => self::priority( $command ) === $priority );
			if ( ! $chosen ) {
				continue;
			}
			$lines = array_map( static fn ( Command $command ): string => sprintf( "%.6F\t%s", $command->madeAt, $command->json ), $chosen ); // phpcs:ignore WordPress.NamingConventions.ValidVariableName -- The client's own.
			$row   = array(
				'priority' => $priority,
				'made_at'  => self::microseconds( reset( $chosen )->madeAt ), // phpcs:ignore WordPress.NamingConventions.ValidVariableName
				'commands' => implode( "\n", $lines ),
			);
			$quiet = $wpdb->suppress_errors();
			$added = $wpdb->insert( Push_Server_Tables::spool(), $row, array( '%d', '%d', '%s' ) );
			$wpdb->suppress_errors( $quiet );
			if ( ! $added ) {
				throw new SpoolException( 'The database does not take it: ' . esc_html( $wpdb->last_error ) );
			}
		}
		Push_Server_Cron::soon();
	}

	/**
	 * Whether nothing waits.
	 */
	public function isEmpty(): bool { // phpcs:ignore WordPress.NamingConventions.ValidFunctionName
		global $wpdb;
		$quiet = $wpdb->suppress_errors();
		$found = $wpdb->get_var( 'SELECT 1 FROM ' . Push_Server_Tables::spool() . ' LIMIT 1' );
		$wpdb->suppress_errors( $quiet );
		return null === $found;
	}

	/**
	 * Become the one process that sends. The database lets go of the lock when a process dies.
	 *
	 * Some databases have no such locks. Then everybody sends: sending twice does no harm.
	 */
	public function lock(): bool {
		global $wpdb;
		$quiet = $wpdb->suppress_errors();
		$taken = $wpdb->get_var( $wpdb->prepare( 'SELECT GET_LOCK(%s, 0)', self::lock_name() ) );
		$wpdb->suppress_errors( $quiet );
		return '0' !== $taken;
	}

	/**
	 * Let another process send.
	 */
	public function unlock(): void {
		global $wpdb;
		$quiet = $wpdb->suppress_errors();
		$wpdb->get_var( $wpdb->prepare( 'SELECT RELEASE_LOCK(%s)', self::lock_name() ) );
		$wpdb->suppress_errors( $quiet );
	}

	/**
	 * The first entries, as far as they fit; one at least.
	 *
	 * @param int $commands How many commands fit.
	 * @param int $bytes    How many bytes.
	 * @return array<string, list<Command>>
	 */
	public function take( int $commands, int $bytes ): array {
		global $wpdb;
		$table = Push_Server_Tables::spool();
		$taken = array();
		// Their sizes first, so that a long outage does not fill the memory.
		$rows = $wpdb->get_results( $wpdb->prepare( "SELECT id, priority, LENGTH(commands) AS size FROM $table ORDER BY priority, made_at, id LIMIT %d", min( $commands, self::ROWS_TAKEN ) ) );
		foreach ( $rows as $row ) {
			$bytes -= (int) $row->size;
			if ( $taken && $bytes < 0 ) {
				break;
			}
			$content   = (string) $wpdb->get_var( $wpdb->prepare( "SELECT commands FROM $table WHERE id = %d", $row->id ) );
			$found     = self::decode( $content, self::REVOCATION === (int) $row->priority );
			$commands -= count( $found );
			if ( $taken && $commands < 0 ) {
				break;
			}
			$taken[ $row->id ] = $found;
		}
		return $taken;
	}

	/**
	 * Forget entries that were sent.
	 *
	 * @param string[] $keys As take() returned them.
	 */
	public function remove( array $keys ): void {
		global $wpdb;
		if ( $keys ) {
			$wpdb->query( 'DELETE FROM ' . Push_Server_Tables::spool() . ' WHERE id IN (' . implode( ',', array_map( 'intval', $keys ) ) . ')' );
		}
	}

	/**
	 * Drop publications made before this time.
	 *
	 * @param float $before In unix seconds.
	 * @return int How many entries were dropped.
	 */
	public function expire( float $before ): int {
		global $wpdb;
		$table   = Push_Server_Tables::spool();
		$dropped = (int) $wpdb->query( $wpdb->prepare( "DELETE FROM $table WHERE priority = %d AND made_at < %d", self::PUBLICATION, self::microseconds( $before ) ) );
		$surplus = (int) $wpdb->get_var( $wpdb->prepare( "SELECT COUNT(*) FROM $table WHERE priority = %d", self::PUBLICATION ) ) - self::ROWS_LIMIT;
		if ( $surplus > 0 ) {
			$dropped += (int) $wpdb->query( $wpdb->prepare( "DELETE FROM $table WHERE priority = %d ORDER BY made_at, id LIMIT %d", self::PUBLICATION, $surplus ) );
		}
		return $dropped;
	}

	/**
	 * For the owner: how many batches wait, and for how many seconds the oldest does.
	 *
	 * @return array{int, int}|null Null if the table is not there.
	 */
	public function waiting(): ?array {
		global $wpdb;
		$quiet = $wpdb->suppress_errors();
		$row   = $wpdb->get_row( 'SELECT COUNT(*) AS rows_waiting, MIN(made_at) AS oldest FROM ' . Push_Server_Tables::spool() );
		$wpdb->suppress_errors( $quiet );
		if ( ! $row ) {
			return null;
		}
		$count = (int) $row->rows_waiting;
		return array( $count, $count ? max( 0, time() - intdiv( (int) $row->oldest, 1_000_000 ) ) : 0 );
	}

	// phpcs:enable

	/**
	 * Named by the table, because several sites may share a database server.
	 */
	private static function lock_name(): string {
		return 'push_server_' . substr( md5( DB_NAME . '.' . Push_Server_Tables::spool() ), 0, 16 );
	}

	/**
	 * Where a command stands in the queue.
	 *
	 * @param Command $command One of the commands to keep.
	 */
	private static function priority( Command $command ): int {
		return $command->isRevocation ? self::REVOCATION : self::PUBLICATION; // phpcs:ignore WordPress.NamingConventions.ValidVariableName
	}

	/**
	 * A whole number, because a float loses digits on its way into the database.
	 *
	 * @param float $seconds Unix seconds.
	 */
	private static function microseconds( float $seconds ): int {
		return (int) round( $seconds * 1e6 );
	}

	/**
	 * The commands of one row.
	 *
	 * @param string $content       A line per command.
	 * @param bool   $is_revocation Of all of them.
	 * @return list<Command>
	 */
	private static function decode( string $content, bool $is_revocation ): array {
		$commands = array();
		foreach ( explode( "\n", $content ) as $line ) {
			list( $made_at, $json ) = explode( "\t", $line, 2 ) + array( 1 => '' );
			// What somebody has damaged must not spoil the batch it would be sent in.
			if ( is_numeric( $made_at ) && is_array( json_decode( $json, true, 64 ) ) ) {
				$commands[] = new Command( $json, $is_revocation, (float) $made_at );
			}
		}
		return $commands;
	}
}
