/**
 * One attached page: what it wants, what it has had, and what it does by itself.
 *
 * Rules that hold in this file:
 * - A page is given each publication of its channels once, in order. `seen` is the only judge
 *   of that, whichever way a publication came: live, recovered, or fetched for this page alone.
 * - A page's own publications leave one after the other, so that they arrive in the order in
 *   which they were made.
 *
 * Used by connection.js. Needs wire.js and transports.js.
 */
"use strict";

globalThis.PushPage = (() => {
  const { Refusal, backoff } = globalThis.PushWire;
  const { pollOnce } = globalThis.PushTransports;

  /** How long a page may take to bring a token. */
  const TOKEN_TIMEOUT = 15000;
  const PUBLISH_QUEUE = 100;
  const CATCH_UP_ATTEMPTS = 6;
  /** Publications kept for a page while its catch-up runs; beyond, it is told to reload. */
  const HELD = 5000;

  const sleep = (/** @type {number} */ ms) => new Promise((done) => setTimeout(done, ms));

  /**
   * @typedef {{token: string | null}} Session
   * @typedef {{publish: (message: any) => Promise<any>, presence: (message: any) => Promise<any>}}
   *   Calls
   */

  return class Page {
    /**
     * @param {MessagePort} port
     * @param {string} instance
     * @param {[string, number][]} [seen] what it has had from another connection
     */
    constructor(port, instance, seen = []) {
      this.port = port;
      this.instance = instance;
      /** Whether the connection runs in this page's frame, and ends with it. */
      this.hosts = false;
      /** @type {Set<string>} */
      this.channels = new Set();
      /** @type {Map<string, number>} channel → the last offset this page was given */
      this.seen = new Map(seen);
      /** @type {Map<string, string>} channel → what it was last told of it */
      this.told = new Map();
      /** @type {Publication[]} what leaves with the next flush */
      this.due = [];
      /** @type {string | null} the cursor it came back with, until its catch-up begins */
      this.since = null;
      /** @type {Publication[] | null} what waits until it is known where it is, and until its
       * catch-up is done */
      this.held = [];
      /** @type {string[] | null} what it wants, until it is known whose it is */
      this.wish = null;
      /** Pings without a sign of life, and when somebody last looked at it. */
      this.unanswered = 0;
      this.activeAt = Date.now();
      /** @type {((answer: {token?: string, signedOut?: boolean}) => void) | null} */
      this.onToken = null;
      /** @type {Promise<void>} */
      this.publishing = Promise.resolve();
      this.unpublished = 0;
    }

    /** @param {any} message */
    post(message) {
      this.port.postMessage(message);
    }

    /** @param {string[]} wanted */
    want(wanted) {
      this.channels = new Set(wanted);
      // What it does not want any more has no gap when it wants it again.
      if (this.held && this.held.length <= HELD) {
        this.held = this.held.filter(({ channel }) => this.channels.has(channel));
      }
      for (const name of this.told.keys()) if (!this.channels.has(name)) this.told.delete(name);
      for (const name of this.seen.keys()) if (!this.channels.has(name)) this.seen.delete(name);
    }

    /** Whether it has been told that it hears of this channel. @param {string} name */
    hears(name) {
      return this.told.get(name) === "subscribed";
    }

    /** Those of its channels that it hears of. */
    get subscribed() {
      return [...this.channels].filter((name) => this.hears(name));
    }

    /** Those of these channels that it wants. @param {string[]} channels */
    among(channels) {
      return channels.filter((name) => this.channels.has(name));
    }

    /** Whether this is news of a channel; it is taken for told then. */
    learns(/** @type {string} */ name, /** @type {string} */ news) {
      if (this.told.get(name) === news) return false;
      this.told.set(name, news);
      return true;
    }

    /** Continuity ended in these channels: their offsets may begin anew. */
    unsee(/** @type {Iterable<string>} */ channels) {
      for (const name of channels) this.seen.delete(name);
    }

    /** @param {Publication} publication */
    offer(publication) {
      if (!this.hears(publication.channel)) return;
      if (!this.held) {
        if (this.isDue(publication)) this.due.push(publication);
      } else if (this.held.length <= HELD) {
        this.held.push(publication);
      }
    }

    /**
     * Take note of a publication; true if the page has to be given it.
     * @param {Publication} publication
     */
    isDue({ channel, offset, exclude }) {
      if (!this.hears(channel)) return false;
      const last = this.seen.get(channel);
      if (last !== undefined && offset <= last) return false;
      this.seen.set(channel, offset);
      return exclude === undefined || exclude !== this.instance;
    }

    /**
     * Hand over what is due. The cursor goes along, for a page that leaves and comes back.
     * @param {string | null} cursor
     * @param {number} at
     */
    flush(cursor, at) {
      if (!this.due.length) return;
      this.post({ type: "publications", items: this.due, cursor, at });
      this.due = [];
    }

    /** Ask for a token; resolves to {} when no answer comes in time. */
    askToken() {
      return new Promise((done) => {
        const timer = setTimeout(() => this.onToken?.({}), TOKEN_TIMEOUT);
        this.onToken = (answer) => {
          clearTimeout(timer);
          this.onToken = null;
          done(answer);
        };
        this.post({ type: "token" });
      });
    }

    /**
     * Bring this page up to date from its own cursor, while the others go on undisturbed: a
     * page that comes out of the back/forward cache is behind the shared connection. Begins
     * when the shared connection has all of its channels, so that nothing falls between.
     * @param {Session} session
     * @param {() => boolean} attached
     */
    async catchUp(session, attached) {
      let since = this.since;
      this.since = null;
      let complete = !this.subscribed.length;
      for (let attempt = 0; !complete && attempt < CATCH_UP_ATTEMPTS && attached(); attempt += 1) {
        try {
          for (let first = attempt === 0; !complete; first = false) {
            const answer = await pollOnce({ token: session.token || "", since, timeout: 0,
                                            channels: this.subscribed });
            this.giveMissed(answer, first);
            complete = !answer.publications.length || answer.cursor === since;
            since = answer.cursor;
          }
        } catch {
          await sleep(backoff(attempt + 1));
        }
      }
      /** @type {Publication[]} */
      const held = this.held || [];
      this.held = null;
      if (!complete || held.length > HELD) {
        this.unsee(this.channels);
        this.post({ type: "reset", channels: this.subscribed, reason: "unavailable" });
      }
      held.forEach((publication) => this.offer(publication));
    }

    /**
     * @param {{cursor: string, publications: Publication[], control: Control[]}} answer
     * @param {boolean} first
     */
    giveMissed({ cursor, publications, control }, first) {
      for (const { type, channels = [], reason } of control) {
        const concerned = this.among(channels);
        if (type === "reset" && reason !== "unknown" && concerned.length) {
          this.unsee(concerned);
          this.post({ type, channels: concerned, reason });
        } else if (type === "recovered" && first && concerned.length) {
          this.post({ type, channels: concerned });
        }
      }
      const items = publications.filter((publication) => this.isDue(publication));
      if (items.length) this.post({ type: "publications", items, cursor, at: Date.now() });
    }

    /** @param {Calls} calls @param {any} message */
    publish(calls, message) {
      if (this.unpublished >= PUBLISH_QUEUE) {
        const full = new Refusal(429, "too_many_publications", "Too many at once.");
        this.answer(message, Promise.reject(full));
        return;
      }
      this.unpublished += 1;
      this.publishing = this.publishing.then(async () => {
        await this.answer(message, calls.publish(message));
        this.unpublished -= 1;
      });
    }

    /** @param {Calls} calls @param {any} message */
    presence(calls, message) {
      this.answer(message, calls.presence(message));
    }

    /** @param {{request: number}} message @param {Promise<any>} outcome */
    answer({ request }, outcome) {
      return outcome.then(
        (result) => this.post({ type: "answer", request, result }),
        ({ status = 0, code = "internal", message }) =>
          this.post({ type: "answer", request, error: { status, code, message } }));
    }
  };
})();
