/**
 * The one connection that all pages of one user and session share.
 *
 * It runs in a SharedWorker of the push origin, or, where there is none, in a frame, which may
 * lead for others (see share.js); the pages cannot tell the difference, all reach it through a
 * port. In a worker its timers are exact (browsers slow down those of hidden frames). Eight tabs
 * cost one connection (a browser grants six to a host).
 *
 * Rules that hold in this file:
 * - What is missing is fetched with the cursor; what cannot be proved complete is `reset`.
 * - A transport is left only when it is proved not to work while another one does, and the
 *   reason is told to the pages and to the server. There is no interval polling.
 * - No token, no connection: nothing continues as anonymous.
 * - Elapsed time is a difference of wall clocks, never a count of ticks: computers sleep.
 * - A MessagePort has no close event. A page says goodbye in `pagehide`; one that crashed is
 *   found by pings, which a frame answers from its message handler, where no timer is clamped.
 *
 * Used by frame.js; as a worker it starts itself. Needs wire.js, websocket.js, transports.js,
 * session.js, pages.js and channels.js.
 */
"use strict";

if (typeof importScripts === "function") {
  const version = self.location.search;
  const needed = ["wire.js", "websocket.js", "transports.js", "session.js", "pages.js",
                  "channels.js"];
  importScripts(...needed.map((name) => name + version));
}

globalThis.PushConnection = (() => {
  const { Refusal, backoff, isChannel } = globalThis.PushWire;
  const { Choice, TRANSPORTS, pollOnce } = globalThis.PushTransports;
  const { PushChannels: Channels, PushPage: Page, PushSession: Session } = globalThis;

  /** Time without a first line after which a stream is under suspicion. */
  const HELLO_TIMEOUT = 5000;
  const PROOF_GRACE = 1000;
  /** Answers to a stream that say that somebody on the way does not know it. */
  const NOT_THERE = [404, 405, 406, 501];
  /** Two missed heartbeats, and a little for the network, mean that nobody is there. */
  const HEARTBEATS = 2;
  const HEARTBEAT_SLACK = 3000;
  /** A connection that held this long was a good one: the next failure is a first failure. */
  const STEADY = 5000;
  /** New channels are collected this long before the request is made anew. */
  const GATHER = 20;
  /** Channels nobody wants any more stay subscribed this long: the next page may want them. */
  const LINGER = 5000;
  const TICK = 5000;
  /** Pages are pinged this often, and taken for dead after so many pings without a sign. */
  const PING = 30000;
  const PINGS_UNANSWERED = 4;
  /** "replaced" means that this user has too many connections: hurrying back replaces another. */
  const REPLACED_DELAY = 30000;

  /** @typedef {{send: (method: string, params: object) => void}} Line */

  return class PushConnection {
    /**
     * @param {object} place
     * @param {string} place.sharing how pages come to share it: "worker", "locks", "lease", "none"
     * @param {Promise<unknown>} [place.ready] the first request waits for this
     */
    constructor({ sharing, ready = Promise.resolve() }) {
      this.inWorker = sharing === "worker";
      this.ready = ready;
      /** @type {Map<MessagePort, InstanceType<typeof Page>>} */
      this.pages = new Map();
      this.session = new Session({
        pages: () => [...this.pages.values()].sort((one, other) => other.activeAt - one.activeAt),
        has: (page) => this.has(page),
        release: (page, reason) => this.release(page, reason),
        renewed: () => {
          this.channels.hopeless.clear();
          this.present();
        },
      });

      // Where we are; survives reconnects.
      /** @type {string | null} */
      this.cursor = null;
      /** Whether anything was asked for since the first page came. */
      this.began = false;
      this.channels = new Channels();
      this.choice = new Choice();
      this.attempt = 0;
      this.interrupted = false;
      this.silences = 0;
      /** Whether a WebSocket came to nothing the last time while a poll was answered. */
      this.blocked = false;

      // This one request, or series of polls.
      /** @type {AbortController | null} */
      this.abort = null;
      /** @type {Line | null} the way to change it, where the transport has one */
      this.line = null;
      /** @type {{reason: string, delay?: number, planned?: boolean} | null} why it was ended */
      this.ending = null;
      /** @type {string | null} */
      this.askedFrom = null;
      this.presented = "";
      this.beats = false;
      this.changes = false;
      /** Whether the request has said yet what it asks for. */
      this.asked = false;
      this.takes = 0;
      this.startedAt = 0;
      this.heardAt = 0;
      this.heartbeat = 25;

      this.running = false;
      /** Whether the server named the length of the pause. */
      this.ordered = false;
      /** @type {(() => void) | null} ends the pause between two attempts */
      this.hurry = null;
      /** @type {any} */
      this.regroupTimer = 0;
      /** @type {any} */
      this.ticker = 0;
      this.pingedAt = 0;
      this.status = { state: "connecting", transport: "", reason: "", connection: "", user: "",
                      heardAt: 0, sharing, error: /** @type {any} */ (null) };
    }

    /** A page's end of a MessageChannel, or of a worker. @param {MessagePort} port */
    accept(port) {
      port.onmessage = ({ data: message }) => {
        const page = this.pages.get(port);
        if (message.type === "attach") {
          this.attach(port, message);
        } else if (!page) {
          // Taken for dead, or let go: a page that still speaks has to begin anew.
          if (message.type !== "detach") port.postMessage({ type: "unknown" });
        } else {
          page.unanswered = 0;
          if (message.type === "channels") this.want(page, message.channels);
          else if (message.type === "publish") page.queuePublish(this.session, message);
          else if (message.type === "token") page.onToken?.(message);
          else if (message.type === "wake") this.wake(page, message.why);
          else if (message.type === "check") this.session.check();
          else if (message.type === "detach") this.detach(page);
        }
      };
    }

    // ---- Pages come and go

    /**
     * @param {MessagePort} port
     * @param {{instance: string, token: string, channels: string[], since?: string,
     *   seen?: [string, number][], transports?: string[],
     *   avoided?: [string, Avoided][]}} message
     */
    async attach(port, { instance, token, channels, since, seen = [], transports,
                         avoided = [] }) {
      this.choice.recall(avoided);
      this.choice.allow(transports);
      const page = new Page(port, instance, seen);
      this.pages.set(port, page);
      this.ticker = this.ticker || setInterval(() => this.tick(), TICK);
      page.post({ type: "welcome" });
      const useful = await this.session.present(page, token);
      if (!this.has(page)) return;
      page.post({ type: "status", status: this.status });
      if (since && !this.cursor && !this.began) {
        this.cursor = since;
        this.interrupted = true;
      } else if (since && !this.continues(since, channels)) {
        page.since = since;
        page.held = [];
      }
      this.want(page, channels);
      if (useful && this.status.state === "waiting") this.hurry?.();
      this.run();
    }

    /**
     * Whether a page that has had everything up to here will miss nothing: the request that is
     * about to be made, or to bring something, begins exactly there and asks for its channels.
     * @param {string} since
     * @param {string[]} channels
     */
    continues(since, channels) {
      if (!this.abort || !this.asked) return since === this.cursor;
      return !this.takes && since === this.askedFrom &&
        channels.every((name) => this.channels.covers(name));
    }

    /** @param {InstanceType<typeof Page>} page */
    has(page) {
      return this.pages.get(page.port) === page;
    }

    /** @param {InstanceType<typeof Page>} page */
    detach(page) {
      this.pages.delete(page.port);
      page.onToken?.({});
      if (this.pages.size) {
        this.regroup(LINGER);
      } else {
        // At once, not after a while in case another page comes: a page on its way into the
        // back/forward cache takes its worker along, frozen with whatever is open.
        this.rest();
      }
    }

    /** Let a page go that has no right to stay. */
    release(/** @type {InstanceType<typeof Page>} */ page, /** @type {string} */ reason) {
      page.post({ type: "released", reason });
      this.detach(page);
    }

    /** Another frame goes on: tell all pages where they are, and stop. */
    retire() {
      this.flush();
      this.pulse(this.cursor);
      this.pages.clear();
      this.rest();
    }

    /** Nobody is left: close, and remember nothing about where anybody was. */
    rest() {
      clearTimeout(this.regroupTimer);
      clearInterval(this.ticker);
      this.ticker = 0;
      this.cursor = null;
      this.began = false;
      this.channels.greet([], []);
      this.attempt = 0;
      this.session.forget();
      this.restart("idle", { planned: true });
      this.hurry?.();
      this.status = { ...this.status, state: "connecting", connection: "", error: null };
    }

    /** @param {InstanceType<typeof Page>} page @param {string[]} channels */
    want(page, channels) {
      page.want(channels.filter(isChannel));
      this.announce(page);
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
      if (!this.abort || (!more.length && !fewer.length)) return;
      if (!this.line) {
        // What can be changed later is changed when it is there.
        if (!this.changes) this.restart("channels", { planned: true });
        return;
      }
      this.channels.ask(wanted);
      // First the fewer: there is a limit to how many there may be.
      const left = fewer.filter((name) => this.channels.on.has(name));
      if (left.length) this.line.send("unsubscribe", { channels: left });
      if (more.length) this.line.send("subscribe", { channels: more });
    }

    /** Show the server the token that is in use now. */
    present() {
      const { token } = this.session;
      if (this.line && token) this.line.send("renew", { token });
      else this.restart("token", { planned: true });
    }

    /** The channels to ask for: those of all pages. */
    wanted() {
      const { sub } = this.session.claims || {};
      this.channels.personal = sub === undefined ? "" : `user:${sub}`;
      const pages = [...this.pages.values()];
      const { names, beyond } = this.channels.choose(pages.flatMap((page) => [...page.channels]));
      for (const page of pages) {
        const cut = page.among(beyond).filter((name) => page.learns(name, "too_many_channels"));
        if (cut.length) page.post({ type: "denied", channels: cut, code: "too_many_channels" });
      }
      return names;
    }

    /** Tell a page which of its channels are on, and which the token does not grant. */
    announce(/** @type {InstanceType<typeof Page>} */ page) {
      if (this.status.state !== "live") return;
      const code = "channel_denied";
      const { on: known, denied } = this.channels;
      const on = page.among([...known]).filter((name) => page.learns(name, "subscribed"));
      const off = page.among([...denied]).filter((name) => page.learns(name, code));
      if (on.length) page.post({ type: "subscribed", channels: on, cursor: this.cursor });
      if (off.length) page.post({ type: "denied", channels: off, code });
      if (page.since && [...page.channels].every((name) => page.told.has(name))) {
        page.catchUp(this.session, () => this.has(page)).then(() => this.flush());
      }
    }

    /** Something happened that makes it worth looking whether we are still connected. */
    wake(/** @type {InstanceType<typeof Page>} */ page, /** @type {string} */ why) {
      page.activeAt = Date.now();
      if (this.hurry) {
        // A delay that the server asked for is kept: it spreads us on purpose.
        if (!this.ordered) this.hurry();
      } else if (why === "resume" && !this.inWorker) {
        // Chromium never wakes a fetch that slept in a frozen frame.
        this.restart("resume");
      } else if (this.isSilent(1)) {
        this.restart("silence");
      }
    }

    /** @param {number} heartbeats */
    isSilent(heartbeats) {
      if (!this.takes || !this.beats) return false;
      return Date.now() - this.heardAt > heartbeats * this.heartbeat * 1000 + HEARTBEAT_SLACK;
    }

    tick() {
      if (Date.now() - this.pingedAt >= PING) {
        this.pingedAt = Date.now();
        for (const page of [...this.pages.values()]) {
          if (page.unanswered >= PINGS_UNANSWERED) this.detach(page);
          else page.post({ type: "ping" });
          page.unanswered += 1;
        }
      }
      if (this.abort && this.isSilent(HEARTBEATS)) this.silent(this.abort);
    }

    // ---- The loop: token, connect, pause

    async run() {
      if (this.running) return;
      this.running = true;
      await this.ready;
      while (this.pages.size) {
        this.ending = null;
        let delay = 0;
        if (this.session.token || (await this.session.ask())) {
          delay = await this.connect();
        } else if (this.pages.size) {
          delay = backoff(this.attempt++);
          this.ordered = false;
          this.report({ state: "waiting", connection: "" });
        }
        if (this.pages.size && delay) await this.pause(delay);
      }
      this.running = false;
    }

    /** @param {number} delay */
    async pause(delay) {
      await new Promise((done) => {
        const timer = setTimeout(done, delay);
        this.hurry = () => {
          clearTimeout(timer);
          done(undefined);
        };
      });
      this.hurry = null;
    }

    /**
     * End what is under way; the loop goes on by itself.
     * @param {string} reason
     * @param {{delay?: number, planned?: boolean}} [how]
     */
    restart(reason, how = {}) {
      if (this.abort && !this.ending) this.ending = { reason, ...how };
      this.abort?.abort();
      if (!how.planned) this.hurry?.();
    }

    /** Connect once and stay as long as it lasts. Returns the milliseconds to wait then. */
    async connect() {
      const transport = this.choice.best();
      const abort = new AbortController();
      this.abort = abort;
      this.beats = transport.beats;
      this.changes = transport.changes;
      this.asked = false;
      this.takes = 0;
      this.startedAt = this.heardAt = Date.now();
      if (this.status.state !== "live") {
        this.report({ state: this.interrupted ? "retrying" : "connecting" });
      }
      const late = setTimeout(() => {
        if (!this.takes) this.prove(transport, abort, "buffered");
      }, HELLO_TIMEOUT);
      /** @type {InstanceType<typeof Refusal> | null} */
      let failure = null;
      try {
        const messages = transport.run({
          ask: () => this.ask(),
          signal: abort.signal,
          onResponse: (response) => this.session.setClock(response),
          onLine: (line) => {
            this.line = line;
          },
        });
        for await (const batch of messages) {
          if (abort.signal.aborted) break;
          this.take(batch, transport.name);
          if (this.choice.best() !== transport) this.restart("better", { planned: true });
        }
      } catch (error) {
        failure = error instanceof Refusal ? error : new Refusal(0, "broken", String(error));
      }
      clearTimeout(late);
      this.line = null;
      if (failure && NOT_THERE.includes(failure.status)) {
        await this.prove(transport, abort, failure.code);
      } else if (failure?.code === "no_websocket") {
        await this.prove(transport, abort, "blocked");
      }
      abort.abort();
      this.abort = null;
      return this.delayAfter(failure);
    }

    /** What a transport asks with. Called for every request it makes. */
    ask() {
      const channels = this.wanted();
      this.began = this.asked = true;
      this.askedFrom = this.cursor;
      this.channels.ask(channels);
      this.presented = this.session.token || "";
      return { token: this.presented, channels, since: this.cursor,
               fallback: this.choice.reason };
    }

    /** @param {InstanceType<typeof Refusal> | null} failure */
    delayAfter(failure) {
      const ending = /** @type {any} */ (this.ending);
      const isLess = failure?.code === "channel_denied" && this.channels.giveUp();
      if (ending?.planned || isLess) return 0;
      this.interrupted = true;
      if (this.takes && Date.now() - this.startedAt > STEADY) this.attempt = 0;
      if (failure && !ending) {
        const { status, code } = failure;
        this.note(failure);
        if (status === 401) this.session.refuse(this.presented);
        if (code === "cursor_malformed") this.lose(code);
        if (code === "too_many_channels") this.channels.halve();
      }
      this.report({ state: "retrying", connection: "" });
      this.ordered = ending?.delay !== undefined || Boolean(failure?.retryAfter);
      if (ending?.delay !== undefined) return ending.delay;
      const jitter = 1 + Math.random() / 5;
      return Math.max(backoff(this.attempt++), (failure?.retryAfter || 0) * jitter);
    }

    /** @param {InstanceType<typeof Refusal>} failure to be seen by whoever asks what is wrong */
    note({ status, code, message }) {
      this.status.error = { status, code, message };
    }

    // ---- Which transport

    /**
     * A transport is suspected. If a poll is answered where it brought nothing, it is proved not
     * to work here (a proxy that collects the whole response, say); if the poll fails as well,
     * the network or the server is to blame and moving on would not help.
     * @param {{name: string}} transport
     * @param {AbortController} abort
     * @param {string} reason
     */
    async prove(transport, abort, reason) {
      if (this.choice.isLast(transport)) return;
      const takes = this.takes;
      /** @type {InstanceType<typeof Refusal> | null} */
      const failure = await pollOnce({ token: this.session.token || "", channels: [], timeout: 0,
                                       signal: abort.signal }).then(() => null, (error) => error);
      // Where everything hung for a moment, the poll may only have been the first to come through.
      const mayCome = reason === "buffered" || reason === "stalled";
      if (!failure && mayCome) await new Promise((done) => setTimeout(done, PROOF_GRACE));
      if (abort.signal.aborted || takes !== this.takes) return;
      // A server that is just starting may refuse the one and answer the other.
      const isDoubtful = reason === "blocked" && !this.blocked;
      this.blocked = !failure && reason === "blocked";
      if (!failure && !isDoubtful) {
        this.choice.avoid(transport.name, reason);
        for (const page of this.pages.values()) {
          page.post({ type: "avoided", avoided: [...this.choice.avoided] });
        }
      }
      if (failure) this.note(failure);
      const wait = failure?.retryAfter
        ? { delay: failure.retryAfter * (1 + Math.random() / 5) } : {};
      this.restart(failure ? "silence" : "fallback", { planned: !failure, ...wait });
    }

    /** Two heartbeats are missing. */
    silent(/** @type {AbortController} */ abort) {
      // A stream that stops after its first lines, twice, is held up by something on the way.
      this.silences = this.takes <= 1 ? this.silences + 1 : 0;
      this.heardAt = Date.now();
      if (this.silences < 2) this.restart("silence");
      else this.prove(this.choice.best(), abort, "stalled");
    }

    // ---- What arrives

    /** @param {any[]} batch @param {string} transport */
    take(batch, transport) {
      this.heardAt = Date.now();
      this.takes += 1;
      if (this.takes === 1) this.greet(transport, batch);
      for (const message of batch) {
        if (typeof message?.channel === "string") this.offer(message);
        else if (message) this.control(message);
        if (typeof message?.cursor === "string") this.cursor = message.cursor;
      }
      this.flush();
    }

    /**
     * The first answer of a connection: it works.
     * @param {string} transport
     * @param {any[]} batch
     */
    greet(transport, batch) {
      if (!this.cursor) {
        this.interrupted = false;
        for (const page of this.pages.values()) page.seen.clear();
      }
      const { connection = "", user = "" } = batch.find(({ type }) => type === "hello") || {};
      const { reason } = this.choice;
      this.report({ state: "live", transport, reason, connection, user, error: null });
    }

    /** @param {Publication} publication */
    offer({ cursor: _cursor, ...publication }) {
      for (const page of this.pages.values()) page.offer(publication);
    }

    flush() {
      for (const page of this.pages.values()) page.flush(this.cursor, this.heardAt);
    }

    /** @param {Control} message */
    control(message) {
      this.flush();
      const channels = Array.isArray(message.channels) ? message.channels : [];
      if (message.type === "hello") this.hello(message);
      else if (message.type === "recovered") this.recovered(channels);
      else if (message.type === "reset") this.reset(channels, message);
      else if (message.type === "ping") this.pulse(message.cursor);
      else if (message.type === "expiring") this.expiring();
      else if (message.type === "degraded") this.delayed(message.degraded === true);
      else if (message.type === "reconnect") this.sentAway(message);
      else if (message.type === "revoked") this.revoked();
      else if (message.type === "answered") this.answered(message);
      else if (message.type === "refused") this.refused(message);
      else if (message.type === "join" || message.type === "leave") this.presence(message);
    }

    /** What was asked for while connected is done. @param {Control} message */
    answered({ method, params, result }) {
      const { channels = [], denied = [], cursor } = result;
      if (typeof cursor === "string") this.cursor = cursor;
      if (method === "unsubscribe") this.channels.drop(channels);
      else this.channels.add(channels);
      this.channels.deny(denied);
      if (method === "renew") {
        this.presented = params.token;
        this.channels.reconsider();
        this.regroup(0);
      }
      for (const page of this.pages.values()) this.announce(page);
    }

    /** Something is not to be had in this connection. @param {Control} message */
    refused({ method, params, error }) {
      if (method === "subscribe" && error.code === "channel_denied") {
        this.channels.deny(params.channels);
        for (const page of this.pages.values()) this.announce(page);
      } else {
        this.restart(method === "renew" ? "token" : "channels", { planned: true });
      }
    }

    /** Somebody came into a channel, or left it. @param {Control} message */
    presence({ type, channels, users }) {
      for (const page of this.pages.values()) {
        for (const channel of page.among(channels)) page.post({ type, channel, users });
      }
    }

    /** @param {Control} message */
    hello({ channels = [], denied = [], heartbeat, expires, cursor }) {
      this.channels.greet(channels, denied);
      if (heartbeat > 0) this.heartbeat = heartbeat;
      if (!this.session.claims && expires > 0) {
        this.session.planRefresh(this.session.now() / 1000, expires);
      }
      if (typeof cursor === "string") this.cursor = cursor;
      for (const page of this.pages.values()) this.announce(page);
      this.pulse(this.cursor);
      if (this.line) this.change();
    }

    /** The server's log is out of reach, or back. @param {boolean} delayed */
    delayed(delayed) {
      this.report({ state: delayed ? "delayed" : "live" });
    }

    /** @param {string[]} channels */
    recovered(channels) {
      if (!this.interrupted) return;
      this.interrupted = false;
      this.tell("recovered", channels);
    }

    /** @param {string[]} channels @param {Control} message */
    reset(channels, { reason, delay = 0 }) {
      // The cursor did not speak of a channel that was just added: nothing was missed.
      const { before } = this.channels;
      const lost = channels.filter((name) => reason !== "unknown" || before.has(name));
      for (const page of this.pages.values()) page.unsee(channels);
      this.tell("reset", lost, { reason: String(reason), ...(delay && { delay }) });
    }

    /** The cursor is of no use: nobody can say what is missing. @param {string} reason */
    lose(reason) {
      this.cursor = null;
      this.tell("reset", [...this.channels.on], { reason });
    }

    /** @param {string} type @param {string[]} channels @param {object} [more] */
    tell(type, channels, more = {}) {
      for (const page of this.pages.values()) {
        const concerned = page.among(channels);
        if (concerned.length) page.post({ type, channels: concerned, ...more });
      }
    }

    /** @param {string | null | undefined} cursor */
    pulse(cursor) {
      for (const page of this.pages.values()) {
        if (!page.held) page.post({ type: "heard", at: this.heardAt, cursor });
      }
    }

    /** @param {Control} message */
    sentAway({ reason, delay = 0 }) {
      if (reason === "expired") this.session.refuse(this.presented);
      const least = reason === "replaced" ? REPLACED_DELAY * (1 + Math.random()) : 0;
      this.restart(String(reason), { delay: Math.max(delay, least) });
    }

    /** The token this connection began with ends soon; there may be a newer one already. */
    expiring() {
      if (this.session.token === this.presented) this.session.refresh();
      else this.present();
    }

    /** The session is over. Whoever comes back has to bring another token. */
    revoked() {
      this.session.refuse(this.session.token);
      const pages = [...this.pages.values()];
      this.pages.clear();
      for (const page of pages) {
        page.post({ type: "revoked" });
        page.onToken?.({});
      }
      this.rest();
    }

    /** @param {Partial<typeof this.status>} changes */
    report(changes) {
      Object.assign(this.status, changes, { heardAt: this.heardAt });
      for (const page of this.pages.values()) page.post({ type: "status", status: this.status });
    }
  };
})();

if (typeof SharedWorkerGlobalScope === "function" && self instanceof SharedWorkerGlobalScope) {
  const connection = new globalThis.PushConnection({ sharing: "worker" });
  self.onconnect = (/** @type {any} */ event) => connection.accept(event.ports[0]);
}
