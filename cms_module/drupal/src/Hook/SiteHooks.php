<?php

declare(strict_types=1);

namespace Drupal\push_server\Hook;

use Drupal\Component\Datetime\TimeInterface;
use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Hook\Attribute\Hook;
use Drupal\Core\StringTranslation\StringTranslationTrait;
use Drupal\Core\StringTranslation\TranslationInterface;
use Drupal\Core\Url;
use Drupal\push_server\ClientFactory;
use Drupal\push_server\Health;
use Drupal\push_server\Notification\Store;

/**
 * What concerns the site as a whole: cron, the status report and help.
 */
final class SiteHooks {

  use StringTranslationTrait;

  /**
   * Seconds that cron spends on sending what waits.
   */
  private const DRAIN_SECONDS = 20.0;

  public function __construct(
    private readonly ClientFactory $clients,
    private readonly Health $health,
    private readonly Store $store,
    private readonly ConfigFactoryInterface $configFactory,
    private readonly TimeInterface $time,
    TranslationInterface $stringTranslation,
  ) {
    $this->setStringTranslation($stringTranslation);
  }

  /**
   * Send what waits, in quiet hours, too, and drop what is old.
   */
  #[Hook('cron')]
  public function cron(): void {
    $this->clients->client()->drain(self::DRAIN_SECONDS);
    $days = (int) $this->configFactory->get('push_server.settings')->get('keep_days');
    $this->store->expire($this->time->getRequestTime() - 86_400 * max(1, $days));
  }

  /**
   * The lines of the status report.
   *
   * @return array<string, array<string, mixed>>
   *   As hook_runtime_requirements() returns them.
   */
  #[Hook('runtime_requirements')]
  public function requirements(): array {
    return $this->health->requirements();
  }

  /**
   * The page of this module in the help.
   */
  #[Hook('help')]
  public function help(string $route_name): string {
    if ($route_name !== 'help.page.push_server') {
      return '';
    }
    $settings = Url::fromRoute('push_server.settings')->toString();
    $announce = Url::fromRoute('push_server.announce')->toString();
    $output = '<h2>' . $this->t('About') . '</h2>';
    $output .= '<p>' . $this->t('Pages of users who are logged in stay connected to a push server, and show at once what concerns them. While the push server is away, the site is as fast as before; what it has to tell waits and is sent later.') . '</p>';
    $output .= '<h2>' . $this->t('Uses') . '</h2><dl>';
    $output .= '<dt>' . $this->t('Connecting the site') . '</dt><dd>' . $this->t('Put the secrets into settings.php, fill in the <a href=":settings">settings</a>, and use <em>Test connection</em>. The status report names what is wrong later.', [':settings' => $settings]) . '</dd>';
    $output .= '<dt>' . $this->t('Showing notifications') . '</dt><dd>' . $this->t('Place the block <em>Notifications</em> in the header of your theme. Users see it who have the permission <em>Receive live updates and notifications</em>.') . '</dd>';
    $output .= '<dt>' . $this->t('Telling everybody') . '</dt><dd>' . $this->t('<a href=":announce">Announcements</a> go to everybody who has a role.', [':announce' => $announce]) . '</dd>';
    $output .= '<dt>' . $this->t('Live comments') . '</dt><dd>' . $this->t('Pages that show comments show new ones as they are published.') . '</dd>';
    $output .= '<dt>' . $this->t('Editing together') . '</dt><dd>' . $this->t('The form of a node names who else has it open, and says when somebody has saved it. Set <code>presence = true</code> and <code>join_leave = true</code> in <code>[namespace.editors]</code> of the push server for that.') . '</dd>';
    $output .= '<dt>' . $this->t('Without cron in time') . '</dt><dd>' . $this->t('What waits is sent by the pages of users who are logged in, and by cron. With the delivery <em>by a queue</em>, run the queue push_server_jobs every minute.') . '</dd>';
    return $output . '</dl>';
  }

}
