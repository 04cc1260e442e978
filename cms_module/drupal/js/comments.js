/**
 * @file
 * Shows new comments on pages that are open.
 *
 * What comes by push is the number of a comment and no more. The page is then
 * asked for again, as this user sees it, and what is new in it is put where it
 * stands there: so themes, access and threads are those of the site. Nothing
 * else of the page is touched; a comment that is being written stays.
 */

((Drupal, once) => {
  /** Readers of one page do not all ask at once. */
  const SPREAD_MS = 1500;
  /** A site that is away is asked again after this time and half as much. */
  const AGAIN_MS = 20000;

  const SECTION = '[data-push-server-comments]';
  const COMMENT = 'data-push-server-comment';

  /** @return {HTMLElement[]} */
  function commentsIn(element) {
    return [...element.querySelectorAll(`[${COMMENT}]`)];
  }

  function idOf(comment) {
    return comment.getAttribute(COMMENT);
  }

  function find(section, id) {
    return commentsIn(section).find((comment) => idOf(comment) === id);
  }

  /** The largest piece around a new comment in which all comments are new. */
  function pieceOf(comment, fresh, section) {
    let piece = comment;
    while (
      piece.parentElement !== fresh &&
      commentsIn(piece.parentElement).every((other) => !find(section, idOf(other)))
    ) {
      piece = piece.parentElement;
    }
    return piece;
  }

  /** The element of this page that stands for a neighbour of the new piece. */
  function counterpart(neighbour, section) {
    const isComment = neighbour.hasAttribute(COMMENT);
    const comment = isComment ? neighbour : commentsIn(neighbour)[0];
    let here = comment && find(section, idOf(comment));
    for (let step = comment; here && step !== neighbour; step = step.parentElement) {
      here = here.parentElement;
    }
    return here;
  }

  /** Put a piece where it stands in the new page. */
  function place(piece, section) {
    const copy = document.importNode(piece, true);
    for (let next = piece.previousElementSibling; next; next = next.previousElementSibling) {
      const here = counterpart(next, section);
      if (here) {
        here.after(copy);
        return copy;
      }
    }
    for (let next = piece.nextElementSibling; next; next = next.nextElementSibling) {
      const here = counterpart(next, section);
      if (here) {
        here.before(copy);
        return copy;
      }
    }
    // The first comment of all: after the same number of elements.
    const index = [...piece.parentElement.children].indexOf(piece);
    section.insertBefore(copy, section.children[index] || null);
    return copy;
  }

  /** Put in their place the parts of a page that BigPipe sends after it. */
  function complete(page) {
    const name = 'data-big-pipe-replacement-for-placeholder-with-id';
    page.querySelectorAll(`script[${name}]`).forEach((script) => {
      const id = script.getAttribute(name);
      const place = page.querySelector(`[data-big-pipe-placeholder-id="${CSS.escape(id)}"]`);
      const insert = JSON.parse(script.textContent).find(({ command }) => command === 'insert');
      if (place && insert) {
        place.outerHTML = insert.data;
      }
    });
  }

  function show(fresh, section) {
    let added = 0;
    commentsIn(fresh).forEach((comment) => {
      if (find(section, idOf(comment))) {
        return;
      }
      const piece = place(pieceOf(comment, fresh, section), section);
      added += 1;
      const pieces = piece.hasAttribute(COMMENT) ? [piece] : commentsIn(piece);
      pieces.forEach((one) => one.classList.add('push-server-new'));
      Drupal.attachBehaviors(piece);
    });
    if (added) {
      Drupal.announce(Drupal.formatPlural(added, '1 new comment', '@count new comments'));
    }
  }

  /** Show a comment as it is now, unless somebody is doing something in it. */
  function replace(id, fresh, section) {
    const old = find(section, id);
    const now = find(fresh, id);
    if (old && now && !old.contains(document.activeElement)) {
      const copy = document.importNode(now, true);
      Drupal.detachBehaviors(old);
      old.replaceWith(copy);
      Drupal.attachBehaviors(copy);
    }
  }

  class Comments {
    constructor(section) {
      this.section = section;
      /** @type {Set<string>} */
      this.changed = new Set();
      this.channel = section.getAttribute('data-push-server-comments');
      this.timer = 0;
      Drupal.pushServer.subscribe(this.channel, (data) => this.take(data));
      Drupal.pushServer.on('reset', (channels) => {
        if (channels.includes(this.channel)) {
          this.refreshSoon();
        }
      });
    }

    take(data) {
      const comment = find(this.section, String(data?.comment));
      if (data?.type === 'gone' && comment) {
        comment.remove();
      } else if (data?.type === 'new' && !comment) {
        this.refreshSoon();
      } else if (data?.type === 'changed' && comment) {
        this.changed.add(idOf(comment));
        this.refreshSoon();
      }
    }

    refreshSoon(least = 0) {
      this.timer ||= setTimeout(
        () => {
          this.timer = 0;
          this.refresh();
        },
        least + Math.random() * (least / 2 || SPREAD_MS),
      );
    }

    async refresh() {
      const changed = [...this.changed];
      this.changed.clear();
      const answer = await fetch(window.location.href, {
        credentials: 'same-origin',
      }).catch(() => null);
      if (!answer || answer.status >= 500) {
        changed.forEach((id) => this.changed.add(id));
        this.refreshSoon(AGAIN_MS);
        return;
      }
      if (!answer.ok) {
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      complete(page);
      const fresh = [...page.querySelectorAll(SECTION)].find(
        (section) => section.getAttribute('data-push-server-comments') === this.channel,
      );
      if (fresh) {
        changed.forEach((id) => replace(id, fresh, this.section));
        show(fresh, this.section);
      }
    }
  }

  Drupal.behaviors.pushServerComments = {
    attach(context) {
      once('push-server-comments', SECTION, context).forEach((section) => new Comments(section));
    },
  };
})(Drupal, once);
