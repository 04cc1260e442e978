<?php

declare(strict_types=1);

namespace PushServer;

use PushServer\Exception\InvalidCall;

/**
 * Channel names, by the same rules as the push server's.
 */
final class Channel
{
    private const NAME = '~\A[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,127}\z~';
    private const PATTERN = '~\A(?:[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,126})?\*\z~';
    private const ID = '~\A[A-Za-z0-9._:-]{1,64}\z~';

    private function __construct()
    {
    }

    /**
     * Whether this is the name of a channel.
     */
    public static function isName(string $text): bool
    {
        return preg_match(self::NAME, $text) === 1;
    }

    /**
     * Whether a token may list this: a channel name, or a prefix followed by "*".
     */
    public static function isNameOrPattern(string $text): bool
    {
        return self::isName($text) || preg_match(self::PATTERN, $text) === 1;
    }

    /**
     * The name itself.
     *
     * @throws InvalidCall if it is not one
     */
    public static function check(string $name): string
    {
        if (self::isName($name)) {
            return $name;
        }
        $rule = str_starts_with($name, '$') || str_starts_with($name, '/')
            ? 'channel names do not begin with $ or /'
            : 'a channel name is 1 to 128 of A-Z a-z 0-9 . _ : / -';
        throw new InvalidCall('channel_malformed', sprintf('The channel %s: %s.', self::quote($name), $rule));
    }

    /**
     * The id itself: that of a publication or of a page instance.
     *
     * @throws InvalidCall if it is not one
     */
    public static function checkId(string $id, string $what): string
    {
        if (preg_match(self::ID, $id) === 1) {
            return $id;
        }
        $message = sprintf('The %s %s: it is 1 to 64 of A-Z a-z 0-9 . _ : -', $what, self::quote($id));
        throw new InvalidCall($what . '_malformed', $message);
    }

    /**
     * The channel that belongs to one user, who is always subscribed to it.
     *
     * @throws InvalidCall if there can be no such user
     */
    public static function personal(string $user): string
    {
        if ($user === '' || !self::isName('user:' . $user)) {
            $rule = 'a user id is 1 to 123 of A-Z a-z 0-9 . _ : / -';
            throw new InvalidCall('user_malformed', sprintf('The user %s: %s.', self::quote($user), $rule));
        }
        return 'user:' . $user;
    }

    /**
     * Foreign text as it may stand in a message: short, printable, and on one line.
     */
    private static function quote(string $text): string
    {
        $json = json_encode(substr($text, 0, 60), JSON_INVALID_UTF8_SUBSTITUTE);
        return $json === false ? '""' : $json;
    }
}
