<?php

declare(strict_types=1);

namespace Drupal\push_server_private_message_test\Entity;

use Drupal\Core\Entity\ContentEntityBase;
use Drupal\Core\Entity\EntityTypeInterface;
use Drupal\Core\Field\BaseFieldDefinition;

/**
 * A message, as far as the module private_message 4.0 has it.
 *
 * @ContentEntityType(
 *   id = "private_message",
 *   label = @Translation("Private message"),
 *   base_table = "private_messages",
 *   admin_permission = "access content",
 *   entity_keys = {
 *     "id" = "id",
 *     "uuid" = "uuid",
 *   },
 * )
 */
final class PrivateMessage extends ContentEntityBase {

  /**
   * {@inheritdoc}
   */
  public static function baseFieldDefinitions(EntityTypeInterface $entity_type): array {
    $fields = parent::baseFieldDefinitions($entity_type);
    $fields['owner'] = BaseFieldDefinition::create('entity_reference')->setSetting('target_type', 'user');
    return $fields;
  }

}
