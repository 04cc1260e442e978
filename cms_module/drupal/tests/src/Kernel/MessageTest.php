<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Kernel;

use Drupal\contact\Entity\ContactForm;
use Drupal\contact\Entity\Message;
use Drupal\push_server\Notification\Store;
use Drupal\push_server\Notification\View;
use PHPUnit\Framework\Attributes\Group;
use PHPUnit\Framework\Attributes\RunTestsInSeparateProcesses;
use Symfony\Component\HttpFoundation\JsonResponse;

/**
 * Messages and announcements.
 *
 * @group push_server
 */
#[Group('push_server')]
#[RunTestsInSeparateProcesses]
final class MessageTest extends PushKernelTestBase {

  /**
   * {@inheritdoc}
   */
  protected static $modules = ['contact'];

  /**
   * {@inheritdoc}
   */
  protected function setUp(): void {
    parent::setUp();
    $this->installConfig(['contact']);
    $this->container->get('current_user')->setAccount($this->bob);
  }

  /**
   * Send a message as the contact form does.
   *
   * @param array<string, mixed> $values
   *   What is in the form.
   */
  private function send(array $values): void {
    $message = Message::create($values);
    $message->save();
    $this->container->get('contact.mail_handler')->sendMailMessages($message, $this->bob);
  }

  /**
   * A message to a user is told to that user, and to nobody else.
   */
  public function testPersonalMessage(): void {
    $this->send([
      'contact_form' => 'personal',
      'recipient' => $this->alice->id(),
      'name' => 'bob',
      'mail' => 'bob@example.com',
      'subject' => 'Lunch & more',
      'copy' => TRUE,
    ]);
    $told = $this->notifications();
    self::assertCount(1, $told);
    self::assertSame('user:' . $this->alice->id(), $told[0][0]);
    self::assertSame(['Message to you', 'Lunch & more', 'bob', '/user/' . $this->bob->id()], [
      $told[0][1]['title'],
      $told[0][1]['text'],
      $told[0][1]['sender'],
      $told[0][1]['url'],
    ]);
  }

  /**
   * A form of the site is told to the users who get its mail.
   */
  public function testFormOfTheSite(): void {
    ContactForm::create([
      'id' => 'feedback',
      'label' => 'Feedback & ideas',
      'recipients' => ['stranger@example.com', $this->alice->getEmail(), $this->bob->getEmail()],
    ])->save();
    $this->send(['contact_form' => 'feedback', 'name' => 'bob', 'mail' => 'b@example.com', 'subject' => 'Hello']);
    $told = $this->notifications();
    self::assertSame(['user:' . $this->alice->id()], array_column($told, 0));
    self::assertSame('Message by the form Feedback & ideas', $told[0][1]['title']);
  }

  /**
   * An announcement is stored and published once, for all who have the role.
   */
  public function testAnAnnouncement(): void {
    $push = $this->container->get('push_server');
    $push->announce('authenticated', 'Maintenance', 'At noon', '/node/1');
    $told = $this->notifications();
    self::assertSame(['role:authenticated'], array_column($told, 0));
    $store = $this->container->get(Store::class);
    self::assertCount(1, $store->ofAccount($this->alice));
    $push->announce('nobody_has_this', 'Secret');
    $this->sent();
    self::assertCount(1, $store->ofAccount($this->alice));
    $this->container->get('database')->update('push_server_notification')->fields(['created' => 1])->execute();
    self::assertCount(0, $store->ofAccount($this->alice), 'before the account was there');
  }

  /**
   * What is too long, or no UTF-8, must not keep a list from being shown.
   */
  public function testWhatDoesNotFit(): void {
    $push = $this->container->get('push_server');
    $push->notify([$this->alice->id()], "\xff" . str_repeat('ä', 300_000), "b\xe4d", "/\xff");
    $push->announce('authenticated', str_repeat('long ', 100_000), "b\xe4d", '//elsewhere.example');
    $told = $this->notifications();
    self::assertSame([255, 255], array_map(static fn (array $news): int => mb_strlen($news[1]['title']), $told));
    self::assertSame('', $told[1][1]['url'], 'not even an announcement leads elsewhere');
    $view = $this->container->get(View::class);
    $items = array_map(
      fn (object $row): ?array => $view->item($row, $this->alice),
      $this->container->get(Store::class)->ofAccount($this->alice),
    );
    self::assertCount(2, json_decode((new JsonResponse($items))->getContent()));
  }

  /**
   * The service for other modules: plain notifications, about entities or not.
   */
  public function testTheServiceForOtherModules(): void {
    $push = $this->container->get('push_server');
    $hidden = $this->article(FALSE);
    $push->notify([$this->alice->id(), $this->bob->id(), 0, 999], 'One', 'text', '/node/1');
    $push->notify([$this->bob->id()], 'Two', entity: $hidden);
    $push->notify([$this->bob->id()], 'Three', url: 'javascript:alert(1)');
    $push->publish('prices', ['n' => 1]);
    $commands = $this->sent();
    self::assertSame(
      ['user:' . $this->alice->id(), 'user:' . $this->bob->id(), 'user:' . $this->bob->id(), 'prices'],
      array_map(static fn (array $command): string => $command['params']['channel'], $commands),
    );
    self::assertSame('', $commands[2]['params']['data']['url']);
    $store = $this->container->get(Store::class);
    self::assertSame(0, $store->seen($this->alice));
    self::assertSame(1, $store->markSeen($this->alice, 1));
    self::assertSame(3, $store->markSeen($this->alice, 1_000_000), 'not beyond what there is');
    self::assertSame(3, $store->markSeen($this->alice, 1), 'never back');
  }

}
