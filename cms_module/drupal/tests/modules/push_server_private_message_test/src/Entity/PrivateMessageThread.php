<?php

declare(strict_types=1);

namespace Drupal\push_server_private_message_test\Entity;

use Drupal\Core\Entity\ContentEntityBase;
use Drupal\Core\Entity\EntityTypeInterface;
use Drupal\Core\Field\BaseFieldDefinition;
use Drupal\Core\Field\FieldStorageDefinitionInterface;
use Drupal\Core\Url;

/**
 * A thread of messages, as far as the module private_message 4.0 has it.
 *
 * @ContentEntityType(
 *   id = "private_message_thread",
 *   label = @Translation("Private message thread"),
 *   base_table = "private_message_threads",
 *   admin_permission = "access content",
 *   entity_keys = {
 *     "id" = "id",
 *     "uuid" = "uuid",
 *   },
 * )
 */
final class PrivateMessageThread extends ContentEntityBase {

  /**
   * {@inheritdoc}
   */
  public static function baseFieldDefinitions(EntityTypeInterface $entity_type): array {
    $fields = parent::baseFieldDefinitions($entity_type);
    foreach (['members' => 'user', 'private_messages' => 'private_message'] as $name => $type) {
      $fields[$name] = BaseFieldDefinition::create('entity_reference')
        ->setSetting('target_type', $type)
        ->setCardinality(FieldStorageDefinitionInterface::CARDINALITY_UNLIMITED);
    }
    return $fields;
  }

  /**
   * {@inheritdoc}
   */
  public function toUrl($rel = 'canonical', array $options = []) {
    return Url::fromUserInput("/private_messages/{$this->id()}");
  }

}
