/**
 * Connects a page of WordPress: asks the site once, listens, and fills the bells and lists.
 *
 *     pushServer.ready.then((push) => push.subscribe("stock:17", (data) => { … }));
 *
 * Rules that hold in this file:
 * - A page asks the site once, when it is loaded: for a token and the list, in one answer. What
 *   happened between two pages is replayed by the push server, from where the last page was.
 * - Nothing of a user is in the page itself, so that any cache may keep it.
 * - When the site ends a session, its pages are not told anything more. Where the user is still
 *   logged in, because only the user's rights or password changed, the page begins anew by itself.
 *
 * Needs push.js and notifications.js. `pushServer` is its only name.
 */
"use strict";

window.pushServer = (() => {
  const { ajax, documentDomain, origins, words } = window.pushServerSettings;
  const STORE = "push-server-cursor";
  /** First and longest pause before the site is asked again. The push server refuses what was
   * issued in the second of a revocation. */
  const AGAIN_MS = 1500;
  const AGAIN_MOST_MS = 60000;

  /**
   * What the site answers; null if nobody is logged in.
   * @param {string} action
   * @param {Record<string, string | number>} [form]
   */
  async function call(action, form) {
    const fields = Object.entries(form || {}).map(([name, value]) => [name, String(value)]);
    const answer = await fetch(`${ajax}?action=push_server_${action}`, {
      method: form ? "POST" : "GET",
      body: form && new URLSearchParams(fields),
      credentials: "same-origin",
      cache: "no-store",
    });
    if (answer.status === 401) return null;
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return answer.json();
  }

  /** What changes something needs a nonce, which ends after a day; every token brings another. */
  let nonce = "";
  /** Whose page this is. */
  let user = 0;

  /** The token and the list; null if nobody is logged in any more, or somebody else. */
  async function ask() {
    const state = await call("state");
    user ||= state?.user;
    if (state?.user !== user) return null;
    ({ nonce } = state);
    return state;
  }

  /** Where the last page of this browser was in the channels of this user. */
  function recall(/** @type {number} */ user) {
    try {
      const kept = JSON.parse(localStorage.getItem(STORE) || "{}");
      return kept.user === user ? kept.cursor : undefined;
    } catch {
      return undefined;
    }
  }

  /** @param {number} user @param {string | null | undefined} cursor */
  function keep(user, cursor) {
    try {
      if (cursor) localStorage.setItem(STORE, JSON.stringify({ user, cursor }));
    } catch {
      // The next page asks the site once more, and that is all.
    }
  }

  /**
   * A connection that begins anew, with everything that was asked of it, after the site has ended
   * the one it had. It has the methods of a connection of push.js that pages use.
   */
  class Line {
    constructor(/** @type {any} */ state) {
      this.state = state;
      /** @type {any[][]} */
      this.wishes = [];
      this.again = AGAIN_MS;
      /** What the last page did not hear is replayed: the list need not be asked for again. */
      this.since = recall(state.user);
      this.isContinued = Boolean(this.since);
      this.open(state.token);
      window.addEventListener("pagehide", () => keep(state.user, this.push?.info().cursor));
    }

    /** @param {string | null} token */
    open(token) {
      if (!this.state.server || !token) return;
      /** @type {string | null} */
      let first = token;
      this.push = window.Push.connect({
        server: this.state.server,
        documentDomain,
        since: this.since,
        token: async () => {
          const mine = first || (await ask())?.token;
          first = null;
          return mine;
        },
      });
      this.push.on("revoked", () => this.reopen());
      this.push.on("status", ({ state }) => {
        if (state === "live") this.again = AGAIN_MS;
      });
      for (const [method, ...wish] of this.wishes) this.push[method](...wish);
    }

    /** Unless somebody else, or nobody, is logged in by now. */
    reopen() {
      // What comes until then is replayed.
      this.since = this.push.info().cursor || undefined;
      setTimeout(async () => {
        try {
          const state = await ask();
          if (state) this.open(state.token);
        } catch {
          this.reopen();
        }
      }, this.again * (1 + Math.random()));
      this.again = Math.min(2 * this.again, AGAIN_MOST_MS);
    }

    /** @param {string} channel @param {(data: any, publication: any) => void} subscriber */
    subscribe(channel, subscriber) {
      this.wish("subscribe", channel, subscriber);
    }

    /** @param {string} name @param {(...details: any[]) => void} listener */
    on(name, listener) {
      this.wish("on", name, listener);
    }

    /** @param {string} channel @param {any} data */
    publish(channel, data) {
      return this.push.publish(channel, data);
    }

    info() {
      return this.push?.info();
    }

    /** @param {any[]} wish */
    wish(method, ...wish) {
      this.wishes.push([method, ...wish]);
      this.push?.[method](...wish);
    }
  }

  /** @param {any} state @param {Line} line */
  function show(state, line) {
    const options = {
      push: line.push && line,
      channel: `user:${state.user}`,
      state,
      fresh: line.isContinued,
      origins,
      words,
      load: ask,
      markSeen: (seen) => call("seen", { seen, nonce }),
    };
    for (const kind of ["bell", "list"]) {
      for (const place of document.querySelectorAll(`[data-push-server="${kind}"]`)) {
        Notifications.mount({ ...options, [kind]: place });
      }
    }
    // Where there is neither, a note still comes up.
    Notifications.mount(options);
  }

  /** The token and the list, once the site can be reached. */
  async function learn() {
    for (let wait = AGAIN_MS; ; wait = Math.min(2 * wait, AGAIN_MOST_MS)) {
      try {
        return await ask();
      } catch {
        await new Promise((done) => setTimeout(done, wait * (1 + Math.random())));
      }
    }
  }

  async function start() {
    const state = await learn();
    // Logged out in another tab meanwhile: whoever waits for a connection waits for ever.
    if (!state) await new Promise(() => {});
    const line = new Line(state);
    show(state, line);
    return { line, state };
  }

  const loaded = new Promise((done) => {
    if (document.readyState === "complete") done(null);
    else window.addEventListener("load", done, { once: true });
  });
  const started = loaded.then(start);
  return Object.freeze({
    /** The connection, once there is one. */
    ready: started.then(({ line }) => line),
    /** Hear one publication of one's own come back. @param {string} ping */
    async ping(ping) {
      const { line, state } = await started;
      if (!line.push) throw new Error("There is no token.");
      await new Promise((heard, fail) => {
        line.subscribe(`user:${state.user}`, (data) => {
          if (data?.type === "ping" && data.ping === ping) heard(null);
        });
        const send = () => call("ping", { ping, nonce }).catch(fail);
        if (line.info().state === "live") send();
        else line.on("subscribed", send);
      });
      return line.info();
    },
  });
})();
