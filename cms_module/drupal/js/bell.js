/**
 * @file
 * Puts the bell of notifications.js where the block is.
 */

/* global Notifications */

((Drupal, once) => {
  /** The list is loaded when the connection stands, or after this without one. */
  const PATIENCE_MS = 2500;

  /**
   * Loads the list, once for all who ask before it is there.
   *
   * A list that is loaded before the page listens could miss what comes in
   * between, and loading it twice would cost the site two requests a page.
   */
  class Loader {
    constructor(url) {
      this.url = url;
      this.loading = null;
      this.ready = new Promise((resolve) => {
        Drupal.pushServer.on('subscribed', resolve);
        setTimeout(resolve, PATIENCE_MS);
      });
    }

    load() {
      this.loading ||= this.ready.then(() => this.fetch()).finally(() => {
        this.loading = null;
      });
      return this.loading;
    }

    async fetch() {
      const answer = await fetch(this.url, { cache: 'no-store', credentials: 'same-origin' });
      if (!answer.ok) {
        throw new Error(`HTTP ${answer.status}`);
      }
      return answer.json();
    }
  }

  function words() {
    return {
      title: Drupal.t('Notifications'),
      none: Drupal.t('Nothing yet. What is new appears here by itself.'),
      count: (unread) =>
        unread
          ? Drupal.formatPlural(unread, '1 new notification', '@count new notifications')
          : Drupal.t('Notifications, none new'),
      close: Drupal.t('Dismiss'),
      fresh: Drupal.t('New'),
      by: (sender) => Drupal.t('from @sender', { '@sender': sender }),
    };
  }

  Drupal.behaviors.pushServerBell = {
    attach(context) {
      once('push-server-bell', '[data-push-server-bell]', context).forEach((bell) => {
        const { settings } = Drupal.pushServer;
        const channels = settings.channels || [];
        if (!channels.length) {
          return;
        }
        let highest = 0;
        const loader = new Loader(settings.listUrl);
        Notifications.mount({
          // Announcements come on the channels of the user's roles.
          push: {
            subscribe: (channel, subscriber) => {
              channels.forEach((name) => {
                Drupal.pushServer.subscribe(name, (data, publication) => {
                  highest = Math.max(highest, Number(data?.id) || 0);
                  subscriber(data, publication);
                });
              });
            },
            on: Drupal.pushServer.on,
          },
          channel: channels[0],
          bell,
          load: async () => {
            const state = await loader.load();
            highest = Math.max(highest, 0, ...state.items.map((item) => item.id));
            return state;
          },
          markSeen: () =>
            fetch(settings.seenUrl, {
              method: 'POST',
              body: new URLSearchParams({ seen: String(highest) }),
              credentials: 'same-origin',
            }),
          words: words(),
        });
      });
    },
  };
})(Drupal, once);
