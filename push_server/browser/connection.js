/**
 * The one connection that all pages of one user and session share.
 *
 * It runs in a SharedWorker of the push origin, or, where there is none, in a frame, which may
 * lead for others (see share.js); the pages cannot tell the difference, all reach it through a
 * port. In a worker its timers are exact (browsers slow down those of hidden frames). Eight tabs
 * cost one connection (a browser grants six to a host).
 *
 * Here is how pages come and go, and what the connection has to bring for them. How the server is
 * reached stands in dialer.js, what it says in arrivals.js, what pages are told in audience.js,
 * what they ask for in calls.js.
 *
 * Rules that hold in this file:
 * - A page begins where it was: what it missed is fetched with its cursor, for it alone if the
 *   others are further.
 * - With the last page goes everything: the next one may be anybody's.
 *
 * Used by frame.js; as a worker it starts itself. Needs all files of which the server makes
 * connection.js, see push_server/doors/files.py.
 */
"use strict";

globalThis.PushConnection = (() => {
  const { isChannel } = globalThis.PushWire;
  const { PushArrivals: Arrivals, PushAudience: Audience, PushCalls: Calls,
          PushChannels: Channels, PushDialer: Dialer, PushPage: Page,
          PushSession: Session } = globalThis;

  /** New channels are collected this long before they are asked for. */
  const GATHER = 20;
  /** Channels nobody wants any more stay subscribed this long: the next page may want them. */
  const LINGER = 5000;
  const TICK = 5000;

  return class PushConnection {
    /**
     * @param {object} place
     * @param {string} place.sharing how pages come to share it: "worker", "locks", "lease", "none"
     * @param {Promise<unknown>} [place.ready] the first request waits for this
     */
    constructor({ sharing, ready = Promise.resolve() }) {
      this.inWorker = sharing === "worker";
      this.ready = ready;
      /** Whether anything was asked for since the first page came, and from where on. */
      this.began = false;
      /** @type {string | null} */
      this.askedFrom = null;
      /** @type {any} */
      this.regroupTimer = 0;
      /** @type {any} */
      this.ticker = 0;
      this.audience = new Audience(sharing);
      this.channels = new Channels();
      this.session = new Session({
        pages: () => this.audience.latestFirst(),
        has: (page) => this.audience.has(page),
        release: (page, reason) => this.release(page, reason),
        renewed: () => {
          this.channels.hopeless.clear();
          this.present();
        },
      });
      this.arrivals = new Arrivals({
        audience: this.audience,
        channels: this.channels,
        session: this.session,
        restart: (reason, how) => this.dialer.restart(reason, how),
        present: () => this.present(),
        adjust: () => {
          if (this.dialer.line) this.change();
        },
        revoked: () => this.revoked(),
      });
      this.dialer = new Dialer({
        session: this.session,
        wanted: () => this.audience.size > 0,
        ask: () => this.ask(),
        take: (batch, how) => this.arrivals.take(batch, how),
        heartbeat: () => this.arrivals.heartbeat,
        lessen: ({ code }) => code === "channel_denied" && this.channels.giveUp(),
        lost: (failure) => this.lost(failure),
        note: (failure) => this.note(failure),
        begin: () => this.begin(),
        waiting: () => this.audience.report({ state: "waiting", connection: "" }),
        avoided: (avoided) => this.audience.post({ type: "avoided", avoided }),
      });
      this.calls = new Calls({
        session: this.session,
        line: () => this.dialer.line,
        hears: (name) => this.channels.on.has(name),
      });
    }

    /**
     * @param {MessagePort} port a page's end of a MessageChannel, or of a worker
     * @param {boolean} [hosts] whether all this runs in that page's frame
     */
    accept(port, hosts = false) {
      port.onmessage = ({ data: message }) => {
        const page = this.audience.pages.get(port);
        if (message.type === "attach") {
          this.attach(port, { ...message, hosts });
        } else if (!page) {
          // Taken for dead, or let go: a page that still speaks has to begin anew.
          if (message.type !== "detach") port.postMessage({ type: "unknown" });
        } else {
          page.unanswered = 0;
          if (message.type === "channels") this.want(page, message.channels);
          else if (message.type === "publish") page.publish(this.calls, message);
          else if (message.type === "presence") page.presence(this.calls, message);
          else if (message.type === "token") page.onToken?.(message);
          else if (message.type === "wake") this.wake(page, message.why);
          else if (message.type === "check") this.check();
          else if (message.type === "hear") page.post({ type: "welcome" });
          else if (message.type === "detach") this.detach(page);
        }
      };
    }

    // ---- Pages come and go

    /**
     * @param {MessagePort} port
     * @param {{instance: string, token: string, channels: string[], since?: string,
     *   seen?: [string, number][], transports?: string[],
     *   avoided?: [string, Avoided][], hosts: boolean}} message
     */
    async attach(port, { instance, token, channels, since, seen = [], transports,
                         avoided = [], hosts }) {
      const { arrivals, audience, dialer } = this;
      // What others found out counts until a connection here has shown that it works.
      if (!dialer.takes) dialer.choice.recall(avoided);
      dialer.choice.allow(transports);
      const page = new Page(port, instance, seen);
      page.hosts = hosts;
      page.wish = channels;
      audience.add(page);
      this.ticker = this.ticker || setInterval(() => this.tick(), TICK);
      page.post({ type: "welcome" });
      const useful = await this.session.present(page, token);
      if (!audience.has(page)) return;
      page.post({ type: "status", status: audience.status });
      // It may have thought better of it meanwhile.
      const wish = page.wish || channels;
      page.wish = null;
      const isFirst = !arrivals.cursor && !this.began;
      if (since && isFirst) {
        arrivals.cursor = since;
        arrivals.interrupted = true;
      }
      if (since && !isFirst && !this.continues(since, wish)) page.since = since;
      else page.held = null;
      this.want(page, wish);
      if (useful && audience.status.state === "waiting") dialer.hurry?.();
      dialer.run(this.ready);
    }

    /**
     * Whether a page that has had everything up to here will miss nothing: the request that is
     * about to be made, or to bring something, begins exactly there and asks for its channels.
     * @param {string} since
     * @param {string[]} channels
     */
    continues(since, channels) {
      const { abort, asked, takes } = this.dialer;
      if (!abort || !asked) return since === this.arrivals.cursor;
      return !takes && since === this.askedFrom &&
        channels.every((name) => this.channels.covers(name));
    }

    /** @param {InstanceType<typeof Page>} page */
    detach(page) {
      this.audience.remove(page);
      if (this.audience.size) {
        this.regroup(LINGER);
      } else {
        // At once, not after a while in case another page comes: a page on its way into the
        // back/forward cache takes its worker along, frozen with whatever is open. (Firefox may
        // freeze it before this message is read, and there is no other way to tell it.)
        this.rest();
      }
    }

    /** Let a page go that has no right to stay. */
    release(/** @type {InstanceType<typeof Page>} */ page, /** @type {string} */ reason) {
      page.post({ type: "released", reason });
      this.detach(page);
    }

    /** The session is over. Whoever comes back has to bring another token. */
    revoked() {
      this.session.refuse(this.session.token);
      this.audience.post({ type: "revoked" });
      this.audience.empty();
      this.rest();
    }

    /** Another frame goes on: tell all pages where they are, and stop. */
    retire() {
      this.arrivals.flush();
      this.audience.pulse(this.arrivals.cursor);
      this.audience.empty();
      this.rest();
    }

    /** Nobody is left: close, and remember nothing about where anybody was. */
    rest() {
      clearTimeout(this.regroupTimer);
      clearInterval(this.ticker);
      this.ticker = 0;
      this.began = false;
      this.arrivals.forget();
      this.session.forget();
      this.dialer.stop();
      this.audience.report({ state: "connecting", connection: "", error: null });
    }

    // ---- What the connection has to bring

    /** @param {InstanceType<typeof Page>} page @param {string[]} channels */
    want(page, channels) {
      if (page.wish) {
        page.wish = channels;
        return;
      }
      page.want(channels.filter(isChannel));
      this.arrivals.announce(page);
      const settled = [...page.channels].every((name) => this.channels.isSettled(name));
      this.regroup(settled ? LINGER : GATHER);
    }

    /** Ask for the channels that are wanted now, soon. @param {number} delay */
    regroup(delay) {
      clearTimeout(this.regroupTimer);
      this.regroupTimer = setTimeout(() => this.change(), delay);
    }

    /** Ask for other channels: in what is open, or else by making the request anew. */
    change() {
      const wanted = this.wanted();
      const { more, fewer } = this.channels.difference(wanted);
      const { abort, changes, line } = this.dialer;
      if (!abort || (!more.length && !fewer.length)) return;
      if (!line) {
        // What can be changed later is changed when it is there.
        if (!changes) this.dialer.restart("channels", { planned: true });
        return;
      }
      const left = fewer.filter((name) => this.channels.on.has(name));
      this.channels.ask(wanted);
      // First the fewer: there is a limit to how many there may be.
      if (left.length) line.send("unsubscribe", { channels: left });
      if (more.length) line.send("subscribe", { channels: more });
    }

    /** Show the server the token that is in use now. */
    present() {
      const { token } = this.session;
      const { line } = this.dialer;
      if (line && token) line.send("renew", { token });
      else this.dialer.restart("token", { planned: true });
    }

    /** The channels to ask for: those of all pages. */
    wanted() {
      const { sub } = this.session.claims || {};
      this.channels.personal = sub === undefined ? "" : `user:${sub}`;
      const { names, beyond } = this.channels.choose(this.audience.channels());
      this.audience.deny(beyond, "too_many_channels");
      return names;
    }

    /** What a request asks with. */
    ask() {
      const channels = this.wanted();
      const token = this.session.token || "";
      this.began = true;
      this.askedFrom = this.arrivals.cursor;
      this.channels.ask(channels);
      this.session.presented = token;
      return { token, channels, since: this.askedFrom };
    }

    // ---- How it fares

    begin() {
      const { arrivals, audience } = this;
      if (audience.status.state === "live") return;
      audience.report({ state: arrivals.interrupted ? "retrying" : "connecting" });
    }

    /** @param {{status: number, code: string, message: string} | null} failure of the request */
    lost(failure) {
      this.arrivals.interrupted = true;
      if (failure) {
        const { status, code } = failure;
        this.note(failure);
        if (status === 401) this.session.refuse(this.session.presented);
        if (code === "cursor_malformed") this.arrivals.lose(code);
        if (code === "too_many_channels") this.channels.halve();
      }
      this.audience.report({ state: "retrying", connection: "" });
    }

    /** To be seen by whoever asks what is wrong. */
    note(/** @type {{status: number, code: string, message: string}} */ { status, code, message }) {
      this.audience.status.error = { status, code, message };
    }

    /** Something happened that makes it worth looking whether we are still connected. */
    wake(/** @type {InstanceType<typeof Page>} */ page, /** @type {string} */ why) {
      page.activeAt = Date.now();
      // Chromium never wakes a fetch that slept in a frozen frame.
      this.dialer.wake(why === "resume" && !this.inWorker);
    }

    /** Another user was seen in this browser: make sure of ours, and tell whoever asked for it. */
    async check() {
      await this.session.check();
      this.audience.post({ type: "checked" });
    }

    tick() {
      for (const page of this.audience.ping()) this.detach(page);
      this.dialer.check();
    }
  };
})();

if (typeof SharedWorkerGlobalScope === "function" && self instanceof SharedWorkerGlobalScope) {
  const connection = new globalThis.PushConnection({ sharing: "worker" });
  self.onconnect = (/** @type {any} */ event) => connection.accept(event.ports[0]);
}
