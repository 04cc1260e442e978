/**
 * All pages that are attached, as one: who they are, and what all of them are told.
 *
 * Rules that hold in this file:
 * - A page is told only of its own channels.
 * - A MessagePort has no close event. A page says goodbye in `pagehide`; one that crashed is
 *   found by pings, which a frame answers from its message handler, where no timer is clamped.
 *
 * Used by connection.js. Needs pages.js.
 */
"use strict";

globalThis.PushAudience = (() => {
  /** Pages are pinged this often, and taken for dead after so many pings without a sign. */
  const PING = 30000;
  const PINGS_UNANSWERED = 4;

  /** @typedef {InstanceType<typeof globalThis.PushPage>} Page */

  return class PushAudience {
    /** @param {string} sharing how pages come to share the connection */
    constructor(sharing) {
      /** @type {Map<MessagePort, Page>} */
      this.pages = new Map();
      this.pingedAt = 0;
      /** `heardAt`: when anything was heard of the server. */
      this.status = { state: "connecting", transport: "", reason: "", connection: "", user: "",
                      heardAt: 0, sharing, error: /** @type {any} */ (null) };
    }

    get size() {
      return this.pages.size;
    }

    [Symbol.iterator]() {
      return this.pages.values();
    }

    /** @param {Page} page */
    add(page) {
      this.pages.set(page.port, page);
    }

    /** @param {Page} page */
    has(page) {
      return this.pages.get(page.port) === page;
    }

    /** Let a page go; it need not bring the token it was asked for. @param {Page} page */
    remove(page) {
      this.pages.delete(page.port);
      page.onToken?.({});
    }

    /** Let all of them go. Returns them. */
    empty() {
      const pages = [...this];
      for (const page of pages) this.remove(page);
      return pages;
    }

    /** In the order in which they are asked for a token: who was last looked at answers best. */
    latestFirst() {
      // Who turns out to have another user now is let go. The host takes the connection along,
      // and the pages that were not asked yet would go on elsewhere as if nothing had happened.
      return [...this].sort((one, other) =>
        Number(one.hosts) - Number(other.hosts) || other.activeAt - one.activeAt);
    }

    /** The channels that any of them wants. */
    channels() {
      return [...this].flatMap((page) => [...page.channels]);
    }

    // ---- What they are told

    /** @param {any} message */
    post(message) {
      for (const page of this) page.post(message);
    }

    /** @param {string} type @param {string[]} channels @param {object} [more] */
    tell(type, channels, more = {}) {
      for (const page of this) {
        const concerned = page.among(channels);
        if (concerned.length) page.post({ type, channels: concerned, ...more });
      }
    }

    /** What a page cannot have, once. @param {string[]} channels @param {string} code */
    deny(channels, code) {
      for (const page of this) {
        const news = page.among(channels).filter((name) => page.learns(name, code));
        if (news.length) page.post({ type: "denied", channels: news, code });
      }
    }

    /** @param {Partial<typeof this.status>} changes */
    report(changes) {
      Object.assign(this.status, changes);
      this.post({ type: "status", status: this.status });
    }

    /** @param {Publication} publication */
    offer(publication) {
      for (const page of this) page.offer(publication);
    }

    /** Hand over what was offered. @param {string | null} cursor */
    flush(cursor) {
      for (const page of this) page.flush(cursor, this.status.heardAt);
    }

    /**
     * There is nothing new, and that is known up to here.
     * @param {string | null | undefined} cursor
     */
    pulse(cursor) {
      for (const page of this) {
        if (!page.held) page.post({ type: "heard", at: this.status.heardAt, cursor });
      }
    }

    /** Ask all of them now and then whether they are there. Returns those that are not. */
    ping() {
      if (Date.now() - this.pingedAt < PING) return [];
      this.pingedAt = Date.now();
      const dead = [...this].filter((page) => page.unanswered >= PINGS_UNANSWERED);
      for (const page of this) {
        page.unanswered += 1;
        page.post({ type: "ping" });
      }
      return dead;
    }
  };
})();
