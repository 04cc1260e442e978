/**
 * @file
 * Puts the bell of notifications.js where the block is, and the list on its page.
 */

/* global Notifications */

((Drupal, once) => {
  const { settings } = Drupal.pushServer;
  const channels = settings.channels || [];

  /** The user's own channel and those of the roles, as if they were one. */
  const push = {
    subscribe(own, subscriber) {
      channels.forEach((channel) => Drupal.pushServer.subscribe(channel, subscriber));
    },
    on(name, listener) {
      Drupal.pushServer.on(name, (concerned) => {
        const isOurs = (channel) => concerned.includes(channel);
        // They are subscribed together, but one may be reset without the others.
        if (name === 'reset' ? channels.some(isOurs) : isOurs(channels[0])) {
          listener([channels[0]]);
        }
      });
    },
  };

  async function load() {
    const answer = await fetch(settings.listUrl, { cache: 'no-store', credentials: 'same-origin' });
    if (!answer.ok) {
      throw new Error(`HTTP ${answer.status}`);
    }
    return answer.json();
  }

  function markSeen(seen) {
    return fetch(settings.seenUrl, {
      method: 'POST',
      body: new URLSearchParams({ seen }),
      credentials: 'same-origin',
      keepalive: true,
    });
  }

  function words() {
    return {
      title: Drupal.t('Notifications'),
      none: Drupal.t('Nothing yet. What is new appears here by itself.'),
      count: (count) =>
        count
          ? Drupal.formatPlural(count, 'Notifications, 1 new', 'Notifications, @count new')
          : Drupal.t('Notifications, none new'),
      arrived: (title) => Drupal.t('New notification: !title', { '!title': title }),
      several: (count) => Drupal.formatPlural(count, '1 new notification', '@count new notifications'),
      close: Drupal.t('Dismiss'),
      fresh: Drupal.t('New'),
      by: (sender) => Drupal.t('from !sender', { '!sender': sender }),
      all: Drupal.t('All notifications'),
    };
  }

  function mount(place) {
    Notifications.mount({ push, channel: channels[0], load, markSeen, words: words(), ...place });
  }

  Drupal.behaviors.pushServerBell = {
    attach(context) {
      if (!channels.length) {
        return;
      }
      once('push-server-bell', '[data-push-server-bell]', context).forEach((bell) => {
        // The link that is there without JavaScript leads to the page with all of them.
        mount({ bell, all: bell.querySelector('a')?.href });
      });
      once('push-server-list', '[data-push-server-list]', context).forEach((list) => {
        mount({ list });
      });
    },
  };
})(Drupal, once);
