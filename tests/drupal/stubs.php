<?php

/**
 * Stand-ins for the few parts of Drupal whose behaviour a test needs.
 *
 * Their signatures were compared with Drupal 10.6.15.
 */

// phpcs:disable PSR1.Classes.ClassDeclaration.MultipleClasses

declare(strict_types=1);

namespace Drupal\Core\Database {
    /**
     * A database of which only the transactions matter.
     */
    class Connection
    {
        /** @var list<callable(bool): void> */
        public array $callbacks = [];
        public bool $isOpen = false;

        public function inTransaction(): bool
        {
            return $this->isOpen;
        }

        public function transactionManager(): self
        {
            return $this;
        }

        public function addPostTransactionCallback(callable $callback): void
        {
            $this->callbacks[] = $callback;
        }

        public function end(bool $success): void
        {
            $this->isOpen = false;
            foreach ($this->callbacks as $callback) {
                $callback($success);
            }
            $this->callbacks = [];
        }
    }
}

namespace Drupal\Core\Config {
    interface ConfigFactoryInterface
    {
        /**
         * @param string $name
         */
        public function get($name);
    }
}

namespace Drupal\Core\Cache {
    interface CacheableResponseInterface
    {
        public function addCacheableDependency($dependency);
    }
}

namespace Drupal\Component\EventDispatcher {
    class Event extends \Symfony\Contracts\EventDispatcher\Event
    {
    }
}

namespace Drupal\Core\Session {
    interface AccountInterface
    {
        public function id();

        public function getRoles($exclude_locked_roles = false);

        public function isAnonymous();

        public function hasPermission(string $permission);
    }
}

namespace Drupal\Core\Site {
    class Settings
    {
        /** @var array<string, mixed> */
        private static array $values = [];

        /**
         * @param array<string, mixed> $values
         */
        public function __construct(array $values)
        {
            self::$values = $values;
        }

        /**
         * @param string $name
         */
        public static function get($name, $default = null)
        {
            return self::$values[$name] ?? $default;
        }

        public static function getHashSalt()
        {
            return 'salt';
        }
    }
}

namespace Drupal\Core {
    class PrivateKey
    {
        public function __construct(public string $key = 'private')
        {
        }

        public function get()
        {
            return $this->key;
        }
    }
}

namespace Drupal\Core\Entity {
    interface EntityInterface
    {
        public function id();

        public function getEntityTypeId();
    }
}

namespace Drupal\Component\Utility {
    class Crypt
    {
        public static function hmacBase64($data, #[\SensitiveParameter] $key)
        {
            return rtrim(strtr(base64_encode(hash_hmac('sha256', $data, $key, true)), '+/', '-_'), '=');
        }
    }
}

namespace Drupal\Core\Routing {
    class AdminContext
    {
        public bool $isAdmin = false;

        public function isAdminRoute()
        {
            return $this->isAdmin;
        }
    }
}

namespace {
    class Drupal
    {
        /** @var list<string> */
        public static array $deleted = [];

        public static function queue(string $name): object
        {
            return new class ($name) {
                public function __construct(private string $name)
                {
                }

                public function deleteQueue(): void
                {
                    Drupal::$deleted[] = $this->name;
                }
            };
        }
    }
}
