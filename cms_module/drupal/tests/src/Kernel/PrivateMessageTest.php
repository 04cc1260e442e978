<?php

declare(strict_types=1);

namespace Drupal\Tests\push_server\Kernel;

use Drupal\push_server_private_message_test\Entity\PrivateMessage;
use Drupal\push_server_private_message_test\Entity\PrivateMessageThread;
use PHPUnit\Framework\Attributes\Group;
use PHPUnit\Framework\Attributes\RunTestsInSeparateProcesses;

/**
 * Messages of the module private_message, on a stand-in for it.
 *
 * @group push_server
 */
#[Group('push_server')]
#[RunTestsInSeparateProcesses]
final class PrivateMessageTest extends PushKernelTestBase {

  /**
   * {@inheritdoc}
   */
  protected static $modules = ['push_server_private_message_test'];

  /**
   * The other members of the thread are told, although it comes after.
   */
  public function testMembersAreTold(): void {
    $this->installEntitySchema('private_message');
    $this->installEntitySchema('private_message_thread');
    $message = PrivateMessage::create(['owner' => $this->bob->id()]);
    $message->save();
    PrivateMessageThread::create([
      'members' => [$this->alice->id(), $this->bob->id()],
      'private_messages' => [$message->id()],
    ])->save();
    $told = $this->notifications();
    self::assertSame(['user:' . $this->alice->id()], array_column($told, 0));
    self::assertSame(['Private message', 'bob', '/private_messages/1'], [
      $told[0][1]['title'],
      $told[0][1]['sender'],
      $told[0][1]['url'],
    ]);
  }

}
