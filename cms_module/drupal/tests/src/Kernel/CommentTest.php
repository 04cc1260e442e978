<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Kernel;

use Drupal\push_server\Channels;
use Drupal\push_server\Event\NotificationEvent;
use Drupal\push_server\Notification\Store;
use Drupal\push_server\Notification\View;
use Drupal\push_server\Outbox;
use Drupal\push_server\Plugin\QueueWorker\JobWorker;
use PHPUnit\Framework\Attributes\Group;
use PHPUnit\Framework\Attributes\RunTestsInSeparateProcesses;

/**
 * Who is told of a comment, and who is not.
 *
 * @group push_server
 */
#[Group('push_server')]
#[RunTestsInSeparateProcesses]
final class CommentTest extends PushKernelTestBase {

  /**
   * The author of the content is told, in words that are text.
   */
  public function testTheAuthorIsTold(): void {
    $node = $this->article();
    $comment = $this->comment($node, $this->bob);
    $commands = $this->sent();
    $page = $this->container->get(Channels::class)->ofPage(Channels::COMMENTS, $node, 'comment');
    self::assertSame(['channel' => $page, 'data' => ['type' => 'new', 'comment' => '1']], [
      'channel' => $commands[0]['params']['channel'],
      'data' => $commands[0]['params']['data'],
    ]);
    self::assertCount(2, $commands);
    self::assertSame('user:' . $this->alice->id(), $commands[1]['params']['channel']);
    $item = $commands[1]['params']['data'];
    self::assertSame('New comment on Fish & <b>chips</b>', $item['title']);
    self::assertSame('bob', $item['sender']);
    self::assertSame('Good & bad() text', str_replace(['<p>', '</p>', '<script>', '</script>'], '', $item['text']));
    self::assertSame("/comment/{$comment->id()}#comment-{$comment->id()}", $item['url']);
  }

  /**
   * Nobody is told of their own comment.
   */
  public function testNobodyIsToldOfHimself(): void {
    $this->comment($this->article(), $this->alice);
    self::assertSame([], $this->notifications());
  }

  /**
   * A reply goes to who is replied to, and nobody is told twice.
   */
  public function testReplyIsToldOnce(): void {
    $node = $this->article();
    $first = $this->comment($node, $this->bob);
    $second = $this->comment($node, $this->alice, TRUE, $first);
    $this->sent();
    $this->comment($node, $this->bob, TRUE, $second);
    $told = $this->notifications();
    self::assertCount(1, $told);
    self::assertSame('user:' . $this->alice->id(), $told[0][0]);
    self::assertStringStartsWith('Reply to your comment on', $told[0][1]['title']);
  }

  /**
   * A comment that waits for approval is told when it is approved, and once.
   */
  public function testAnUnpublishedCommentIsNoNews(): void {
    $comment = $this->comment($this->article(), $this->bob, FALSE);
    self::assertSame([], $this->sent());
    $comment->setPublished()->save();
    self::assertCount(1, $this->notifications());
    $comment->setSubject('Changed')->save();
    self::assertSame([], $this->notifications());
  }

  /**
   * Open pages lose what was unpublished or deleted.
   */
  public function testPageLosesWhatIsGone(): void {
    $node = $this->article();
    $one = $this->comment($node, $this->bob);
    $two = $this->comment($node, $this->bob);
    $this->sent();
    $one->setUnpublished()->save();
    $one->delete();
    $two->delete();
    $types = array_map(static fn (array $command): array => $command['params']['data'], $this->sent());
    self::assertSame([['type' => 'gone', 'comment' => '1'], ['type' => 'gone', 'comment' => '2']], $types);
  }

  /**
   * Who may not view the content is not told, not even its author.
   */
  public function testNobodyIsToldOfWhatHeMayNotView(): void {
    $this->comment($this->article(FALSE), $this->bob);
    self::assertSame([], $this->notifications());
    $dave = $this->createUser(['access content', 'receive push notifications'], 'dave');
    $node = $this->article();
    $node->setOwner($dave)->save();
    $this->comment($node, $this->bob);
    self::assertSame([], $this->notifications(), 'dave may not see comments');
  }

  /**
   * What a user may not view any more is gone from the list.
   */
  public function testListForgetsWhatIsHidden(): void {
    $node = $this->article();
    $this->comment($node, $this->bob);
    $this->sent();
    $rows = $this->container->get(Store::class)->ofAccount($this->alice);
    self::assertCount(1, $rows);
    $view = $this->container->get(View::class);
    self::assertNotNull($view->item($rows[0], $this->alice));
    $node->setUnpublished()->save();
    $this->container->get('entity_type.manager')->getAccessControlHandler('node')->resetCache();
    $this->container->get('entity_type.manager')->getAccessControlHandler('comment')->resetCache();
    $this->container->get('entity_type.manager')->getStorage('comment')->resetCache();
    self::assertNull($view->item($rows[0], $this->alice));
  }

  /**
   * Who approves comments may see what is not published; still it is no news.
   */
  public function testWhatIsTakenBackIsNoNewsForAnybody(): void {
    $permissions = ['access content', 'access comments', 'administer comments', 'receive push notifications'];
    $erin = $this->createUser($permissions, 'erin');
    $node = $this->article();
    $node->setOwner($erin)->save();
    $comment = $this->comment($node, $this->bob);
    $this->sent();
    $rows = $this->container->get(Store::class)->ofAccount($erin);
    $view = $this->container->get(View::class);
    self::assertNotNull($view->item($rows[0], $erin));
    $comment->setUnpublished()->save();
    self::assertTrue($comment->access('view', $erin));
    self::assertNull($view->item($rows[0], $erin));
  }

  /**
   * Users who are blocked, or may not receive anything, are not told.
   */
  public function testOnlyWhoMayReceiveIsTold(): void {
    $node = $this->article();
    $this->alice->block()->save();
    $this->comment($node, $this->bob);
    self::assertSame([], $this->notifications());
    $node->setOwner($this->createUser(['access content', 'access comments'], 'erin'))->save();
    $this->comment($node, $this->bob);
    self::assertSame([], $this->notifications());
  }

  /**
   * A save that is rolled back publishes nothing.
   */
  public function testRollbackPublishesNothing(): void {
    $node = $this->article();
    $transaction = $this->container->get('database')->startTransaction();
    $this->comment($node, $this->bob);
    self::assertSame([], $this->sent(), 'nothing before it is committed');
    $transaction->rollBack();
    unset($transaction);
    self::assertSame([], $this->sent());
    $transaction = $this->container->get('database')->startTransaction();
    $this->comment($node, $this->bob);
    unset($transaction);
    self::assertCount(2, $this->sent());
  }

  /**
   * What is imported is no news.
   */
  public function testAnImportIsNoNews(): void {
    $node = $this->article();
    $comment = $this->comment($node, $this->bob, FALSE);
    $comment->setPublished()->setSyncing(TRUE)->save();
    self::assertSame([], $this->sent());
  }

  /**
   * Each kind can be switched off.
   */
  public function testItCanBeSwitchedOff(): void {
    $this->config('push_server.settings')->set('notify.comment', FALSE)->set('live_comments', FALSE)->save();
    $this->comment($this->article(), $this->bob);
    self::assertSame([], $this->sent());
  }

  /**
   * Other modules change who is told, and still nobody learns too much.
   */
  public function testOtherModulesDecide(): void {
    $carol = $this->createUser(['access content', 'access comments', 'receive push notifications'], 'carol');
    $dave = $this->createUser(['access content', 'receive push notifications'], 'dave');
    $types = [];
    $this->container->get('event_dispatcher')->addListener(
      NotificationEvent::class,
      static function (NotificationEvent $event) use ($carol, $dave, &$types): void {
        $types[] = [$event->type, $event->entity?->getEntityTypeId()];
        $event->uids = [(int) $carol->id(), (int) $dave->id()];
      }
    );
    $this->comment($this->article(), $this->bob);
    $told = $this->notifications();
    self::assertSame([['comment', 'comment']], $types);
    self::assertSame(['user:' . $carol->id()], array_column($told, 0));
  }

  /**
   * With a queue, the request does nothing but remember.
   */
  public function testQueueDoesTheWork(): void {
    $this->config('push_server.settings')->set('delivery', 'queue')->save();
    $this->comment($this->article(), $this->bob);
    self::assertSame([], $this->sent());
    $queue = $this->container->get('queue')->get(Outbox::QUEUE);
    self::assertSame(1, $queue->numberOfItems());
    $worker = $this->container->get('plugin.manager.queue_worker')->createInstance(Outbox::QUEUE);
    self::assertInstanceOf(JobWorker::class, $worker);
    $worker->processItem($queue->claimItem()->data);
    self::assertCount(1, $this->notifications());
  }

}
