<?php

declare(strict_types=1);

namespace Drupal\push_server\Hook;

use Drupal\comment\CommentInterface;
use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Entity\EntityFormInterface;
use Drupal\Core\Form\FormStateInterface;
use Drupal\Core\Hook\Attribute\Hook;
use Drupal\Core\Session\AccountInterface;
use Drupal\Core\Url;
use Drupal\node\NodeInterface;
use Drupal\push_server\Channels;
use Drupal\push_server\PageSettings;

/**
 * Makes parts of pages live.
 */
final class PageHooks {

  public function __construct(
    private readonly PageSettings $page,
    private readonly Channels $channels,
    private readonly ConfigFactoryInterface $configFactory,
    private readonly AccountInterface $currentUser,
  ) {}

  /**
   * The templates that a theme may replace.
   *
   * @return array<string, array<string, mixed>>
   *   As hook_theme() returns them.
   */
  #[Hook('theme')]
  public function theme(): array {
    return [
      'push_server_bell' => ['variables' => ['url' => NULL]],
      'push_server_list' => ['variables' => ['items' => []]],
      'push_server_editors' => ['variables' => ['attributes' => []]],
    ];
  }

  /**
   * The part of the settings that belongs to one user.
   *
   * @param array<string, mixed> $settings
   *   What is about to become drupalSettings.
   */
  #[Hook('js_settings_alter')]
  public function jsSettingsAlter(array &$settings): void {
    $this->page->personalise($settings);
  }

  /**
   * The comments of something: where open pages show new ones.
   *
   * @param array<string, mixed> $variables
   *   Variables of field.html.twig.
   */
  #[Hook('preprocess_field')]
  public function preprocessField(array &$variables): void {
    $entity = $variables['element']['#object'] ?? NULL;
    if (($variables['field_type'] ?? '') !== 'comment' || $entity === NULL || $entity->isNew()) {
      return;
    }
    $this->page->attach($variables, 'comments');
    if ($this->page->isFor($this->currentUser) && $this->configFactory->get('push_server.settings')->get('live_comments')) {
      $variables['attributes']['data-push-server-comments']
        = $this->channels->ofPage(Channels::COMMENTS, $entity, (string) $variables['field_name']);
    }
  }

  /**
   * A comment: which one it is.
   *
   * @param array<string, mixed> $variables
   *   Variables of comment.html.twig.
   */
  #[Hook('preprocess_comment')]
  public function preprocessComment(array &$variables): void {
    $comment = $variables['comment'] ?? NULL;
    if ($comment instanceof CommentInterface && !$comment->isNew()) {
      $variables['attributes']['data-push-server-comment'] = $comment->id();
    }
  }

  /**
   * The form of a node: who else has it open.
   *
   * @param array<string, mixed> $form
   *   The form.
   * @param \Drupal\Core\Form\FormStateInterface $form_state
   *   Its state.
   */
  #[Hook('form_node_form_alter')]
  public function nodeFormAlter(array &$form, FormStateInterface $form_state): void {
    $object = $form_state->getFormObject();
    $node = $object instanceof EntityFormInterface ? $object->getEntity() : NULL;
    if (!$node instanceof NodeInterface || $node->isNew() || !$this->page->isFor($this->currentUser)
      || !$this->configFactory->get('push_server.settings')->get('editors')) {
      return;
    }
    $channel = $this->channels->ofPage(Channels::EDITORS, $node);
    $form['push_server_editors'] = [
      '#theme' => 'push_server_editors',
      '#attributes' => [
        'data-push-server-editors' => $channel,
        'data-url' => Url::fromRoute('push_server.editors', ['node' => $node->id()])->toString(),
      ],
      '#weight' => -1000,
    ];
    $this->page->attach($form['push_server_editors'], 'editors');
  }

}
