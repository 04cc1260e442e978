<?php
/**
 * Plugin Name:       Push Server
 * Description:       Live notifications for your users, through a push server that stands beside your site. When that server is slow or away, your pages are as fast as ever.
 * Version:           0.1.0
 * Requires at least: 6.1
 * Requires PHP:      8.1
 * Author:            The push-server authors
 * License:           GPL-2.0-or-later
 * License URI:       https://www.gnu.org/licenses/old-licenses/gpl-2.0.html
 * Text Domain:       push-server
 * Domain Path:       /languages
 * Network:           true
 *
 * Loads the plugin. What it does and when stands in includes/hooks.php.
 *
 * @package Push_Server
 */

declare( strict_types=1 );

defined( 'ABSPATH' ) || exit;

const PUSH_SERVER_VERSION = '0.1.0';
const PUSH_SERVER_FILE    = __FILE__;

require __DIR__ . '/lib/client/autoload.php';

spl_autoload_register(
	static function ( string $name ): void {
		if ( str_starts_with( $name, 'Push_Server_' ) ) {
			$path = __DIR__ . '/includes/class-' . strtolower( strtr( $name, '_', '-' ) ) . '.php';
			if ( is_file( $path ) ) {
				require $path;
			}
		}
	}
);

require __DIR__ . '/includes/functions.php';
require __DIR__ . '/includes/hooks.php';
