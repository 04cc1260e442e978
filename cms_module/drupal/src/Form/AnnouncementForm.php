<?php

declare(strict_types=1);

namespace Drupal\push_server\Form;

use Drupal\Component\Utility\UrlHelper;
use Drupal\Core\Entity\EntityTypeManagerInterface;
use Drupal\Core\Form\FormBase;
use Drupal\Core\Form\FormStateInterface;
use Drupal\push_server\Push;
use Drupal\user\RoleInterface;
use Symfony\Component\DependencyInjection\ContainerInterface;

/**
 * Notifies everybody who has a role.
 */
final class AnnouncementForm extends FormBase {

  /**
   * Makes the form.
   *
   * Its properties are neither private nor readonly: a form that is kept for
   * another request is taken apart and put together by its base class.
   */
  public function __construct(
    protected Push $push,
    protected EntityTypeManagerInterface $entityTypeManager,
  ) {}

  /**
   * {@inheritdoc}
   */
  public static function create(ContainerInterface $container): self {
    return new self($container->get('push_server'), $container->get('entity_type.manager'));
  }

  /**
   * {@inheritdoc}
   */
  public function getFormId(): string {
    return 'push_server_announcement';
  }

  /**
   * {@inheritdoc}
   */
  public function buildForm(array $form, FormStateInterface $form_state): array {
    $roles = $this->entityTypeManager->getStorage('user_role')->loadMultiple();
    unset($roles[RoleInterface::ANONYMOUS_ID]);
    $form['role'] = [
      '#type' => 'select',
      '#title' => $this->t('To everybody who is'),
      '#options' => array_map(static fn (RoleInterface $role): string => (string) $role->label(), $roles),
      '#default_value' => RoleInterface::AUTHENTICATED_ID,
      '#required' => TRUE,
    ];
    $form['title'] = [
      '#type' => 'textfield',
      '#title' => $this->t('Title'),
      '#maxlength' => 120,
      '#required' => TRUE,
    ];
    $form['text'] = [
      '#type' => 'textarea',
      '#title' => $this->t('Text'),
      '#rows' => 3,
      '#maxlength' => 500,
    ];
    $form['path'] = [
      '#type' => 'textfield',
      '#title' => $this->t('Path'),
      '#description' => $this->t('Where it leads on this site, such as %path.', ['%path' => '/node/7']),
    ];
    $form['actions'] = ['#type' => 'actions'];
    $form['actions']['submit'] = ['#type' => 'submit', '#value' => $this->t('Send'), '#button_type' => 'primary'];
    return $form;
  }

  /**
   * {@inheritdoc}
   */
  public function validateForm(array &$form, FormStateInterface $form_state): void {
    $path = trim((string) $form_state->getValue('path'));
    if ($path !== '' && ($path[0] !== '/' || str_starts_with($path, '//') || UrlHelper::isExternal($path))) {
      $form_state->setErrorByName('path', $this->t('The path begins with a slash, and stays on this site.'));
    }
    $form_state->setValue('path', $path);
  }

  /**
   * {@inheritdoc}
   */
  public function submitForm(array &$form, FormStateInterface $form_state): void {
    $this->push->announce(
      (string) $form_state->getValue('role'),
      trim((string) $form_state->getValue('title')),
      trim((string) $form_state->getValue('text')),
      (string) $form_state->getValue('path'),
    );
    $this->messenger()->addStatus($this->t('The announcement is on its way.'));
  }

}
