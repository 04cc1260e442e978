<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Kernel;

use Drupal\comment\CommentInterface;
use Drupal\comment\Entity\Comment;
use Drupal\comment\Tests\CommentTestTrait;
use Drupal\KernelTests\Core\Entity\EntityKernelTestBase;
use Drupal\node\Entity\Node;
use Drupal\node\Entity\NodeType;
use Drupal\node\NodeInterface;
use Drupal\push_server\ClientFactory;
use Drupal\push_server\Outbox;
use Drupal\user\UserInterface;

/**
 * A site whose push server is away, so that all it has to say is in the spool.
 */
abstract class PushKernelTestBase extends EntityKernelTestBase {

  use CommentTestTrait;

  /**
   * {@inheritdoc}
   */
  protected static $modules = ['node', 'comment', 'push_server'];

  /**
   * The author of the content.
   */
  protected UserInterface $alice;

  /**
   * Who comments on it.
   */
  protected UserInterface $bob;

  /**
   * {@inheritdoc}
   */
  protected function setUp(): void {
    parent::setUp();
    $this->installEntitySchema('node');
    $this->installEntitySchema('comment');
    $this->installSchema('comment', ['comment_entity_statistics']);
    $this->installSchema('node', ['node_access']);
    $this->installSchema('user', ['users_data']);
    $this->installSchema('push_server', ['push_server_spool', 'push_server_notification']);
    $this->installConfig(['filter', 'comment', 'node', 'push_server']);
    // Port 9 is refused at once.
    $this->setSetting('push_server', [
      'url' => 'http://127.0.0.1:9',
      'api' => 'http://127.0.0.1:9',
      'token_key' => str_repeat('t', 32),
      'api_key' => 'whsec_' . base64_encode(str_repeat('a', 32)),
    ]);
    NodeType::create(['type' => 'article', 'name' => 'Article'])->save();
    $this->addDefaultCommentField('node', 'article');
    // The first user may do everything.
    $this->createUser();
    $permissions = ['access content', 'access comments', 'post comments', 'receive push notifications'];
    $this->alice = $this->createUser($permissions, 'alice');
    $this->bob = $this->createUser($permissions, 'bob');
    $this->sent();
  }

  /**
   * What the end of the request would send, without what was sent before.
   *
   * @return list<array{method: string, params: array<string, mixed>}>
   *   Commands in their order.
   */
  protected function sent(): array {
    $this->container->get(Outbox::class)->destruct();
    $spool = $this->container->get(ClientFactory::class)->spool();
    $commands = [];
    foreach ($spool->take(1000, 1_000_000) as $entry) {
      foreach ($entry as $command) {
        $commands[] = json_decode($command->json, TRUE);
      }
    }
    $this->container->get('database')->truncate('push_server_spool')->execute();
    return $commands;
  }

  /**
   * The notifications among what is sent.
   *
   * @return list<array{string, array<string, mixed>}>
   *   Channels and items.
   */
  protected function notifications(): array {
    $found = [];
    foreach ($this->sent() as $command) {
      if (($command['params']['data']['type'] ?? '') === 'notification') {
        $found[] = [$command['params']['channel'], $command['params']['data']];
      }
    }
    return $found;
  }

  /**
   * An article of alice's.
   */
  protected function article(bool $isPublished = TRUE): NodeInterface {
    $node = Node::create([
      'type' => 'article',
      'title' => 'Fish & <b>chips</b>',
      'uid' => $this->alice->id(),
      'status' => $isPublished,
    ]);
    $node->save();
    return $node;
  }

  /**
   * A comment on it.
   */
  protected function comment(
    NodeInterface $node,
    UserInterface $author,
    bool $isPublished = TRUE,
    ?CommentInterface $parent = NULL,
  ): CommentInterface {
    $comment = Comment::create([
      'entity_type' => 'node',
      'entity_id' => $node->id(),
      'field_name' => 'comment',
      'comment_type' => 'comment',
      'pid' => $parent?->id(),
      'uid' => $author->id(),
      'status' => (int) $isPublished,
      'subject' => 'Hello',
      'comment_body' => ['value' => '<p>Good & <script>bad()</script> text</p>', 'format' => 'plain_text'],
    ]);
    $comment->save();
    return $comment;
  }

}
