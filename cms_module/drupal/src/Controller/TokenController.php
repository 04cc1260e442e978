<?php

declare(strict_types=1);

namespace Drupal\push_server\Controller;

use Drupal\Core\DependencyInjection\ContainerInjectionInterface;
use Drupal\Core\Session\AccountInterface;
use Drupal\push_server\Tokens;
use Symfony\Component\DependencyInjection\ContainerInterface;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;

/**
 * Gives a page that has been open for long its next token.
 */
final class TokenController implements ContainerInjectionInterface {

  public function __construct(
    private readonly Tokens $tokens,
    private readonly AccountInterface $currentUser,
  ) {}

  /**
   * {@inheritdoc}
   */
  public static function create(ContainerInterface $container): self {
    return new self($container->get(Tokens::class), $container->get('current_user'));
  }

  /**
   * A token as plain text. No cache keeps it, and no other site can read it.
   *
   * A page says whose it is: somebody else may have logged in meanwhile.
   */
  public function token(Request $request): Response {
    $user = $request->query->getString('user');
    $isSame = $user === '' || $user === (string) $this->currentUser->id();
    $token = $isSame ? $this->tokens->issue($request, $this->currentUser) : NULL;
    return new Response((string) $token, $token === NULL ? 403 : 200, [
      'Content-Type' => 'text/plain; charset=UTF-8',
      'Cache-Control' => 'private, no-store',
    ]);
  }

}
