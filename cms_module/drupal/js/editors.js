/**
 * @file
 * Says on the form of a node who else has it open, and that somebody has saved.
 *
 * Who is there is known to the push server, and asked through the site, which
 * knows the names and who may see them.
 */

((Drupal, once) => {
  /** Who opens the form is connected by then. */
  const SOON_MS = 2500;
  /** Who has saved has left the form, and is gone for the push server by then. */
  const GONE_MS = 5000;
  /** Nobody says goodbye; a form that nobody looks at does not ask. */
  const AGAIN_MS = 30000;

  class Editors {
    constructor(line) {
      this.line = line;
      this.channel = line.getAttribute('data-push-server-editors');
      this.names = [];
      this.isSaved = false;
      this.timer = 0;
      Drupal.pushServer.subscribe(this.channel, (data) => this.take(data));
      Drupal.pushServer.on('subscribed', () => this.ask());
      ['join', 'leave'].forEach((name) => {
        Drupal.pushServer.on(name, (channel) => channel === this.channel && this.ask());
      });
      setInterval(() => document.hidden || this.ask(), AGAIN_MS);
    }

    take(data) {
      if (data?.type === 'saved') {
        this.isSaved = true;
        this.draw();
        this.askLater(GONE_MS);
      } else if (data?.type === 'opened') {
        this.askLater(SOON_MS);
      }
    }

    askLater(time) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), time);
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
