<?php

declare(strict_types=1);

namespace PushServer\Exception;

/**
 * What every exception of this library is. By default none of them leaves it: see Client.
 *
 * - ConfigException: a setting is missing or wrong; the site's owner has to act.
 * - InvalidCall: an argument cannot be sent; the programmer has to act. Nothing was sent.
 * - CallFailed: the push server did not do it.
 *   - Unreachable: no connection; it did nothing.
 *   - NoAnswer: it may or may not have done it.
 *   - Refused: it answered with an error.
 * - SpoolException: what could not be sent could not be kept either.
 */
interface PushException extends \Throwable
{
}
