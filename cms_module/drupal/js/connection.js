/**
 * @file
 * The one connection of a page, for all that is live in it.
 *
 *   Drupal.pushServer.subscribe('prices', (data) => { … });
 *   Drupal.pushServer.on('reset', (channels) => { … });
 *
 * Nothing is connected before somebody subscribes, and nothing at all for
 * visitors without a token. When the site ends the connection, because of new
 * roles or a new password, it is asked once more: who is still logged in gets a
 * new token and goes on, and who is not stays disconnected.
 */

((Drupal, drupalSettings) => {
  /** Until tokens of the second in which the old ones ended are good again. */
  const AGAIN_MS = 2000;
  const AGAIN_JITTER_MS = 3000;

  const settings = drupalSettings.pushServer || {};
  /** @type {[string, Function][]} */
  const subscriptions = [];
  /** @type {[string, Function][]} */
  const listeners = [];
  let push = null;
  let firstToken = settings.token || '';

  /** The token that came with the page; after it, those that the site gives. */
  function token() {
    const first = firstToken;
    firstToken = '';
    return first || fetch(settings.tokenUrl, { cache: 'no-store', credentials: 'same-origin' });
  }

  function connect() {
    push = window.Push.connect({
      server: settings.server,
      token,
      documentDomain: settings.documentDomain,
      // What came since the site ended the last one is replayed.
      since: push?.info().cursor,
    });
    push.on('revoked', (reason) => {
      // Not where somebody else has logged in: then this page is that of a stranger.
      if (reason === 'revoked') {
        setTimeout(connect, AGAIN_MS + Math.random() * AGAIN_JITTER_MS);
      }
    });
    subscriptions.forEach(([channel, subscriber]) => push.subscribe(channel, subscriber));
    listeners.forEach(([name, listener]) => push.on(name, listener));
  }

  Drupal.pushServer = {
    /** Where this page asks its site, and who its user is to the push server. */
    settings,

    /**
     * Be called with (data, publication) for what is published in a channel.
     *
     * @param {string} channel
     * @param {Function} subscriber
     */
    subscribe(channel, subscriber) {
      if (!settings.server || !window.Push) {
        return;
      }
      subscriptions.push([channel, subscriber]);
      if (push) {
        push.subscribe(channel, subscriber);
      } else {
        connect();
      }
    },

    /**
     * Hear of the events of push.js.
     *
     * @param {string} name
     * @param {Function} listener
     */
    on(name, listener) {
      listeners.push([name, listener]);
      if (push) {
        push.on(name, listener);
      }
    },
  };
})(Drupal, drupalSettings);
