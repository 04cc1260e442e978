/**
 * @file
 * Says on the form of a node who else has it open, and that somebody has saved.
 *
 * Who is there is known to the push server, and asked through the site, which
 * knows the names and who may see them.
 */

((Drupal, once) => {
  /** Several may come and go at once. */
  const SOON_MS = 300;
  /** The push server tells who comes and goes, but what it told while we were away is lost. */
  const AGAIN_MS = 60000;

  class Editors {
    constructor(line) {
      this.line = line;
      this.channel = line.getAttribute('data-push-server-editors');
      this.names = [];
      this.isSaved = false;
      this.timer = 0;
      Drupal.pushServer.subscribe(this.channel, (data) => this.take(data));
      Drupal.pushServer.on('subscribed', (channels) => {
        if (channels.includes(this.channel)) {
          this.ask();
        }
      });
      ['join', 'leave'].forEach((name) => {
        Drupal.pushServer.on(name, (channel, users) => this.move(channel, users));
      });
      setInterval(() => document.hidden || this.ask(), AGAIN_MS);
    }

    take(data) {
      if (data?.type === 'saved') {
        this.isSaved = true;
        this.draw();
      }
    }

    /** Others have come or gone; that we have come ourselves is no news. */
    move(channel, users) {
      const isUs = ({ user }) => Drupal.pushServer.settings.channels[0] === `user:${user}`;
      if (channel === this.channel && !users.every(isUs)) {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.ask(), SOON_MS);
      }
    }

    async ask() {
      const answer = await fetch(this.line.dataset.url, {
        cache: 'no-store',
        credentials: 'same-origin',
      }).catch(() => null);
      if (answer?.ok) {
        this.names = (await answer.json()).names;
        this.draw();
      }
    }

    draw() {
      const sentences = [];
      if (this.isSaved) {
        sentences.push(
          Drupal.t('This content has been saved meanwhile. Copy what you have changed, and reload.'),
        );
      }
      if (this.names.length) {
        sentences.push(
          Drupal.formatPlural(
            this.names.length,
            '!names is editing this, too.',
            '!names are editing this, too.',
            { '!names': this.names.join(', ') },
          ),
        );
      }
      const text = sentences.join(' ');
      // Told once by screen readers, and not with every question.
      if (text !== this.line.textContent) {
        this.line.textContent = text;
        this.line.hidden = !text;
      }
    }
  }

  Drupal.behaviors.pushServerEditors = {
    attach(context) {
      once('push-server-editors', '[data-push-server-editors]', context).forEach(
        (line) => new Editors(line),
      );
    },
  };
})(Drupal, once);
