<?php

declare(strict_types=1);

namespace Drupal\push_server\Form;

use Drupal\Core\Config\ConfigFactoryInterface;
use Drupal\Core\Config\TypedConfigManagerInterface;
use Drupal\Core\Extension\ModuleHandlerInterface;
use Drupal\Core\Form\ConfigFormBase;
use Drupal\Core\Form\FormStateInterface;
use Drupal\Core\Form\RedundantEditableConfigNamesTrait;
use Drupal\push_server\ClientFactory;
use Drupal\push_server\Health;
use PushServer\Config;
use PushServer\Exception\ConfigException;
use Symfony\Component\DependencyInjection\ContainerInterface;

/**
 * Connects the site to its push server, and chooses what is live.
 */
final class SettingsForm extends ConfigFormBase {

  use RedundantEditableConfigNamesTrait;

  /**
   * Makes the form.
   *
   * Its properties are neither private nor readonly: a form that is kept for
   * another request is taken apart and put together by its base class.
   */
  public function __construct(
    ConfigFactoryInterface $configFactory,
    TypedConfigManagerInterface $typedConfigManager,
    protected ClientFactory $clients,
    protected Health $health,
    protected ModuleHandlerInterface $modules,
  ) {
    parent::__construct($configFactory, $typedConfigManager);
  }

  /**
   * {@inheritdoc}
   */
  public static function create(ContainerInterface $container): self {
    return new self(
      $container->get('config.factory'),
      $container->get('config.typed'),
      $container->get(ClientFactory::class),
      $container->get(Health::class),
      $container->get('module_handler'),
    );
  }

  /**
   * {@inheritdoc}
   */
  public function getFormId(): string {
    return 'push_server_settings';
  }

  /**
   * {@inheritdoc}
   */
  public function buildForm(array $form, FormStateInterface $form_state): array {
    $form['connection'] = [
      '#type' => 'details',
      '#title' => $this->t('Connection'),
      '#open' => TRUE,
    ];
    $form['connection']['url'] = [
      '#type' => 'textfield',
      '#title' => $this->t('Push server, as browsers see it'),
      '#description' => $this->t('Such as %url. The push server lists this site in its <code>site_origins</code>.', ['%url' => 'https://push.example.com']),
      '#config_target' => 'push_server.settings:url',
    ];
    $form['connection']['api'] = [
      '#type' => 'textfield',
      '#title' => $this->t('Its internal listener, as this host sees it'),
      '#description' => $this->t('Its <code>internal_listen</code>, such as %url or %path.', [
        '%url' => 'http://127.0.0.1:6667',
        '%path' => 'unix:/run/push-server/api.sock',
      ]),
      '#config_target' => 'push_server.settings:api',
    ];
    $form['connection']['problems'] = $this->problems();
    $fixed = $this->clients->fixed();
    foreach (['url', 'api'] as $name) {
      if (isset($fixed[$name])) {
        $form['connection'][$name] = [
          '#type' => 'item',
          '#title' => $form['connection'][$name]['#title'],
          '#plain_text' => (string) $fixed[$name],
          '#description' => $this->t('Is in settings.php or in the environment.'),
        ];
      }
    }
    $form['connection'] += $this->secrets($fixed);
    $form['connection']['test'] = [
      '#type' => 'submit',
      '#value' => $this->t('Test connection'),
      '#submit' => ['::testConnection'],
      '#limit_validation_errors' => [['url'], ['api'], ['token_key_id'], ['api_key_id']],
      '#ajax' => ['callback' => '::showResults', 'wrapper' => 'push-server-results'],
    ];
    $form['connection']['results'] = $this->results($form_state);
    $choices = new Choices($this->modules, $this->getStringTranslation());
    $form['bridge'] = $choices->bridge();
    $form['live'] = $choices->live();
    $form['sending'] = $choices->sending();
    return parent::buildForm($form, $form_state);
  }

  /**
   * {@inheritdoc}
   */
  public function validateForm(array &$form, FormStateInterface $form_state): void {
    parent::validateForm($form, $form_state);
    try {
      Config::fromArray($this->clients->settings($this->entered($form_state)));
    }
    catch (ConfigException $problem) {
      // What is missing is no mistake yet; the connection test names it.
      foreach (['url', 'api'] as $name) {
        if (isset($problem->problems[$name]) && $form_state->getValue($name) !== '') {
          $form_state->setErrorByName($name, $problem->problems[$name]);
        }
      }
    }
  }

  /**
   * Go the whole way with what is in the form now.
   */
  public function testConnection(array &$form, FormStateInterface $form_state): void {
    $checks = $this->health->checks($this->clients->create($this->entered($form_state)));
    $form_state->set('checks', $checks);
    $form_state->setRebuild();
  }

  /**
   * The part of the form that shows how it went.
   */
  public function showResults(array &$form): array {
    return $form['connection']['results'];
  }

  /**
   * What of the connection is in the form, even if it is not saved.
   *
   * @return array<string, string>
   *   Settings by name; what is empty counts as missing.
   */
  private function entered(FormStateInterface $form_state): array {
    $entered = [];
    foreach (['url', 'api', 'token_key_id', 'api_key_id'] as $name) {
      $value = $form_state->getValue($name);
      if ($value !== NULL) {
        $entered[$name] = trim((string) $value);
      }
    }
    return $entered;
  }

  /**
   * What is wrong with the settings as they are, all of it at once.
   *
   * @return array<string, mixed>
   *   A render array.
   */
  private function problems(): array {
    $problems = [];
    try {
      Config::fromArray($this->clients->settings());
    }
    catch (ConfigException $problem) {
      $problems = array_values($problem->problems);
    }
    return [
      '#theme' => 'item_list',
      '#title' => $this->t('Nothing is pushed yet'),
      '#items' => $problems,
      '#access' => $problems !== [],
      '#weight' => -10,
      '#wrapper_attributes' => ['class' => ['messages', 'messages--warning']],
    ];
  }

  /**
   * The secrets: where they come from, or a choice of keys.
   *
   * @param array<string, mixed> $fixed
   *   What settings.php and the environment say.
   *
   * @return array<string, mixed>
   *   Form elements.
   */
  private function secrets(#[\SensitiveParameter] array $fixed): array {
    $elements = [];
    $titles = ['token_key' => $this->t('Token key'), 'api_key' => $this->t('API key')];
    foreach ($titles as $name => $title) {
      if (isset($fixed[$name]) || !$this->modules->moduleExists('key')) {
        $elements["{$name}_place"] = [
          '#type' => 'item',
          '#title' => $title,
          '#markup' => isset($fixed[$name])
            ? $this->t('Is in settings.php or in the environment.')
            : $this->t('Is missing. Put the line that <code>push-server init</code> has printed into settings.php: <code>@line</code>', [
              '@line' => "\$settings['push_server']['$name'] = '...';",
            ]),
        ];
      }
      else {
        $elements["{$name}_id"] = [
          '#type' => 'key_select',
          '#title' => $title,
          '#empty_option' => $this->t('- None -'),
          '#config_target' => "push_server.settings:{$name}_id",
        ];
      }
    }
    return $elements;
  }

  /**
   * How the connection test went.
   *
   * @return array<string, mixed>
   *   A render array.
   */
  private function results(FormStateInterface $form_state): array {
    $words = [
      'ok' => $this->t('OK'),
      'warning' => $this->t('Warning'),
      'error' => $this->t('Error'),
      'skipped' => $this->t('Not tried'),
    ];
    $rows = [];
    foreach ($form_state->get('checks') ?? [] as $check) {
      $rows[] = [
        'class' => ["color-{$check->status->value}"],
        'data' => [
          ['data' => $this->health->title($check->name), 'header' => TRUE],
          $words[$check->status->value],
          $check->message,
        ],
      ];
    }
    return [
      '#type' => 'container',
      '#attributes' => ['id' => 'push-server-results', 'aria-live' => 'polite'],
      'table' => [
        '#type' => 'table',
        '#header' => [$this->t('What'), $this->t('Result'), $this->t('Details')],
        '#rows' => $rows,
        '#access' => $rows !== [],
      ],
    ];
  }

}
