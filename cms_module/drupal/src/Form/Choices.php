<?php

declare(strict_types=1);

namespace Drupal\push_server\Form;

use Drupal\Core\Extension\ModuleHandlerInterface;
use Drupal\Core\StringTranslation\StringTranslationTrait;
use Drupal\Core\StringTranslation\TranslatableMarkup;
use Drupal\Core\StringTranslation\TranslationInterface;
use Drupal\push_server\Bridge;

/**
 * What a site chooses in its settings form once it is connected.
 */
final class Choices {

  use StringTranslationTrait;

  public function __construct(
    private readonly ModuleHandlerInterface $modules,
    TranslationInterface $stringTranslation,
  ) {
    $this->setStringTranslation($stringTranslation);
  }

  /**
   * How page and frame talk.
   *
   * @return array<string, mixed>
   *   A form element.
   */
  public function bridge(): array {
    return [
      '#type' => 'details',
      '#title' => $this->t('How pages talk to the push server'),
      '#open' => FALSE,
      'bridge' => [
        '#type' => 'radios',
        '#title' => $this->t('Through the frame of the push server'),
        '#options' => [
          Bridge::DOCUMENT_DOMAIN => $this->t('by document.domain, where browsers allow it'),
          Bridge::MESSAGES => $this->t('by messages'),
        ],
        '#description' => $this->t('With document.domain, every other host below the same domain that uses it, too, can act in the pages of this site, except in its administration. Choose messages if you do not trust all of them, and leave <code>document_domain</code> of the push server empty.'),
        '#config_target' => 'push_server.settings:bridge',
      ],
      'agent_cluster' => [
        '#type' => 'checkbox',
        '#title' => $this->t('Send <code>Origin-Agent-Cluster: ?0</code> with every page'),
        '#description' => $this->t('Chromium ignores document.domain without it. Switch this off if the web server adds the header: twice is as good as not at all.'),
        '#config_target' => 'push_server.settings:agent_cluster',
        '#states' => ['visible' => [':input[name="bridge"]' => ['value' => Bridge::DOCUMENT_DOMAIN]]],
      ],
    ];
  }

  /**
   * What users are told of.
   *
   * @return array<string, mixed>
   *   A form element.
   */
  public function live(): array {
    $choices = [
      'notify.comment' => $this->t('Notify users of a comment on their content'),
      'notify.reply' => $this->t('Notify users of a reply to their comment'),
      'notify.contact' => $this->t('Notify users of a message by a contact form'),
      'notify.private_message' => $this->t('Notify users of a private message'),
      'live_comments' => $this->t('Show new comments on open pages'),
      'editors' => $this->t('Show on the form of a node who else has it open'),
    ];
    $needs = ['notify.contact' => 'contact', 'notify.private_message' => 'private_message'];
    $elements = [
      '#type' => 'details',
      '#title' => $this->t('What is live'),
      '#open' => TRUE,
    ];
    foreach ($choices as $key => $title) {
      $elements[strtr($key, '.', '_')] = [
        '#type' => 'checkbox',
        '#title' => $title,
        '#config_target' => "push_server.settings:$key",
        '#access' => !isset($needs[$key]) || $this->modules->moduleExists($needs[$key]),
      ];
    }
    $elements['editors']['#description'] = $this->t('Needs <code>presence = true</code> and <code>join_leave = true</code> in <code>[namespace.editors]</code> of the push server.');
    return $elements;
  }

  /**
   * When it is sent, and how long it is kept.
   *
   * @return array<string, mixed>
   *   A form element.
   */
  public function sending(): array {
    return [
      '#type' => 'details',
      '#title' => $this->t('Sending and keeping'),
      '#open' => FALSE,
      'delivery' => [
        '#type' => 'radios',
        '#title' => $this->t('Send'),
        '#options' => [
          'response' => $this->t('when the visitor has the page'),
          'queue' => $this->t('by a queue'),
        ],
        '#description' => $this->t('A queue is for sites whose PHP cannot end a response, and for very large ones. Run the queue push_server_jobs every minute then; cron alone is too late.'),
        '#config_target' => 'push_server.settings:delivery',
      ],
      'spool_seconds' => self::number('spool_seconds', $this->t('Seconds after which news that could not be sent are dropped'), 1, 80_000),
      'keep_days' => self::number('keep_days', $this->t('Days that notifications are kept'), 1, 3650),
      'token_lifetime' => self::number('token_lifetime', $this->t('Seconds that a token is good for'), 60, 604_800),
      'token_in_page' => [
        '#type' => 'checkbox',
        '#title' => $this->t('Put the token into the page'),
        '#description' => $this->t('Saves a request. Switch this off only if something in front of this site, or a module, keeps whole pages of users who are logged in.'),
        '#config_target' => 'push_server.settings:token_in_page',
      ],
    ];
  }

  /**
   * A setting that is a number.
   *
   * @return array<string, mixed>
   *   A form element.
   */
  private static function number(string $name, TranslatableMarkup $title, int $least, int $most): array {
    return [
      '#type' => 'number',
      '#title' => $title,
      '#min' => $least,
      '#max' => $most,
      '#required' => TRUE,
      '#config_target' => "push_server.settings:$name",
    ];
  }

}
