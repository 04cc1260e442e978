/**
 * What a page of the site includes: live updates in five lines.
 *
 *     const push = Push.connect({ server: "https://push.example.com", token: "/push/token" });
 *     push.subscribe("node:7", (data, publication) => { … });
 *     push.on("reset", (channels) => location.reload());
 *     push.publish("chat:lobby", { text: "hi" });
 *     document.body.append(push.statusElement());
 *
 * Rules that hold in this file:
 * - The page's own speed comes first: nothing is loaded before the page's `load` event, and
 *   nothing from the push server at all for a visitor without a token.
 * - Whatever arrives is data. It is never evaluated and never becomes HTML; what a callback does
 *   with it is the site's affair, and a callback that throws harms nobody else.
 * - A publication that may have been missed is never passed over: `reset` names its channel.
 *
 * A classic script without dependencies. It needs `frame-src` and `script-src` for the push
 * server in the page's Content-Security-Policy, if it has one, and nothing else. tools/copies
 * makes it of the files in push_server/browser/page.
 */
"use strict";

(() => {
  /** Delays between attempts to get a first token or to load the frame, with full jitter. */
  const RETRY_BASE = 1000;
  const RETRY_CAP = 60000;

  /** Why something failed. `stored` of a publication: false, or null where nobody knows. */
  class PushError extends Error {
    /**
     * @param {string} code
     * @param {string} message
     * @param {{status?: number, channels?: string[]}} [more]
     */
    constructor(code, message, { status = 0, channels = [] } = {}) {
      super(message);
      this.name = "PushError";
      this.code = code;
      this.status = status;
      this.channels = channels;
      this.stored = status >= 400 && status < 500 ? false : null;
    }
  }

  /** @param {number} attempt */
  function backoff(attempt) {
    return Math.random() * Math.min(RETRY_CAP, RETRY_BASE * 2 ** Math.min(attempt, 10));
  }

  const EVENTS = ["status", "subscribed", "reset", "recovered", "revoked", "error", "join",
                  "leave"];

  /** Call what the site gave us. @param {Function} callback @param {...any} details */
  function callSite(callback, ...details) {
    try {
      callback(...details);
    } catch (error) {
      // As if nobody had called it.
      setTimeout(() => {
        throw error;
      });
    }
  }

  class Listeners {
    constructor() {
      /** @type {Map<string, Set<(...details: any[]) => void>>} */
      this.of = new Map(EVENTS.map((name) => [name, new Set()]));
    }

    /**
     * @param {string} name
     * @param {(...details: any[]) => void} listener
     * @returns {() => void} stops it
     */
    add(name, listener) {
      const listeners = this.of.get(name);
      if (!listeners) throw new TypeError(`No such event: ${name}. There are ${EVENTS.join(", ")}`);
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    }

    /** @param {string} name @param {...any} details */
    tell(name, ...details) {
      for (const listener of [...(this.of.get(name) || [])]) callSite(listener, ...details);
    }
  }

  class Requests {
    /** @param {(message: any) => void} post to the frame */
    constructor(post) {
      this.post = post;
      this.made = 0;
      /** @type {Map<number, {done: (result: any) => void, fail: (error: PushError) => void,
       *   message: any}>} */
      this.waiting = new Map();
    }

    /** @param {any} wanted @returns {Promise<any>} */
    make(wanted) {
      return new Promise((done, fail) => {
        this.made += 1;
        const message = { ...wanted, request: this.made };
        this.waiting.set(this.made, { done, fail, message });
        this.post(message);
      });
    }

    repeat() {
      for (const { message } of this.waiting.values()) this.post(message);
    }

    /** @param {any} answer */
    settle({ request, result, error }) {
      const waiting = this.waiting.get(request);
      this.waiting.delete(request);
      if (result) waiting?.done(result);
      else waiting?.fail(new PushError(error.code, error.message, { status: error.status }));
    }

    /** There will be no answer to anything. @param {string} code @param {string} message */
    end(code, message) {
      for (const { fail } of this.waiting.values()) fail(new PushError(code, message));
      this.waiting.clear();
    }
  }

  const TOKEN = /^\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+=*$/;
  const MAX_TOKEN = 4096;

  /**
   * @typedef {string | null | undefined | Response} TokenAnswer
   * @typedef {string | (() => TokenAnswer | Promise<TokenAnswer>)} TokenSource
   *   a path of the site, or a function that returns the token or a Response
   */

  class TokenDesk {
    /** @param {TokenSource} source @param {(code: string, message: string) => void} fail */
    constructor(source, fail) {
      this.source = source;
      this.fail = fail;
    }

    /**
     * The token to begin with, however long it takes; "" if nobody is signed in.
     * @param {() => boolean} wanted whether to go on asking
     * @param {() => void} waiting is called before each pause
     */
    async first(wanted, waiting) {
      for (let attempt = 0; wanted(); attempt += 1) {
        const answer = await this.ask();
        if (answer.token || answer.signedOut) return answer.token || "";
        waiting();
        await new Promise((done) => setTimeout(done, backoff(attempt)));
      }
      return "";
    }

    /**
     * Ask the site for a token. Nobody is signed in: {signedOut: true}. The site is in trouble: {},
     * and a later attempt may succeed.
     * @returns {Promise<{token?: string, signedOut?: boolean}>}
     */
    async ask() {
      try {
        const { source } = this;
        let answer = await (typeof source === "function"
          ? source()
          : fetch(source, { cache: "no-store", credentials: "same-origin" }));
        if (answer instanceof Response) {
          if ([204, 401, 403].includes(answer.status)) return { signedOut: true };
          if (!answer.ok) throw new PushError("token_unavailable", `HTTP ${answer.status}`);
          answer = await answer.text();
        }
        const token = String(answer ?? "").trim();
        if (!token) return { signedOut: true };
        if (token.length <= MAX_TOKEN && TOKEN.test(token)) return { token };
        throw new PushError("token_malformed", "What the site returned is not a token.");
      } catch (error) {
        // Anything can be thrown, nothing too; and what browsers throw has numbers for codes.
        const { status, code, message = "" } = /** @type {any} */ (error ?? {});
        if (status === 401 || status === 403) return { signedOut: true };
        this.fail(typeof code === "string" ? code : "token_unavailable", message);
        return {};
      }
    }
  }

  /** The frame has to load in this time, in later attempts in up to three times as long, and then
   * to answer in that; else the server is away, or refuses this site. */
  const LOAD_TIMEOUT = 10000;
  const ANSWER_TIMEOUT = 3000;
  /** A goodbye has to be read before the frame goes. */
  const GOODBYE = 100;

  class PushFrame {
    /**
     * @param {URL} server
     * @param {{take: (messages: any[]) => void, silent: (message: string) => void}} house is given
     *   what the frame says, and told when it says nothing
     */
    constructor(server, house) {
      this.server = server;
      this.house = house;
      /** @type {MessagePort | null} */
      this.port = null;
      /** @type {HTMLIFrameElement | null} */
      this.element = null;
      /** Whether it was told what this page wants. */
      this.started = false;
      this.attempt = 0;
      /** @type {any} */
      this.timer = 0;
    }

    open() {
      const frame = document.createElement("iframe");
      frame.src = new URL("frame", this.server.href.replace(/\/?$/, "/")).href;
      frame.title = "Live updates";
      frame.tabIndex = -1;
      frame.setAttribute("aria-hidden", "true");
      // Inside the viewport and displayed: browsers slow down frames that are neither.
      Object.assign(frame.style, { position: "fixed", left: "0", bottom: "0", width: "1px",
                                   height: "1px", border: "0", opacity: "0",
                                   pointerEvents: "none" });
      frame.addEventListener("load", () => this.meet(frame));
      this.element = frame;
      document.body.append(frame);
      this.give(LOAD_TIMEOUT * Math.min(this.attempt + 1, 3));
    }

    /** @param {number} time */
    give(time) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.silent(), time);
    }

    /** A document was loaded into the frame: ours, a newer one of ours, or an error page. */
    meet(/** @type {HTMLIFrameElement} */ frame) {
      if (frame !== this.element) return;
      this.port?.close();
      this.started = false;
      this.give(ANSWER_TIMEOUT);
      const { port1, port2 } = new MessageChannel();
      this.port = port1;
      port1.onmessage = ({ data }) => this.house.take(data);
      frame.contentWindow?.postMessage({ push: "connect" }, this.server.origin, [port2]);
    }

    silent() {
      this.house.silent("The frame did not answer: the push server is away, or it does not know " +
        `the origin ${location.origin}.`);
      this.drop();
      this.attempt += 1;
      this.timer = setTimeout(() => this.open(), backoff(this.attempt));
    }

    /** It has answered: tell it what this page wants. @param {object} wish */
    start(wish) {
      clearTimeout(this.timer);
      this.attempt = 0;
      this.started = true;
      this.post({ type: "start", ...wish });
    }

    /** Tell it something; what it was never told of comes with `start`. @param {any} message */
    post(message) {
      if (this.started) this.port?.postMessage(message);
    }

    leave() {
      this.post({ type: "close" });
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.drop(), GOODBYE);
    }

    drop() {
      clearTimeout(this.timer);
      this.port?.close();
      this.port = null;
      this.element?.remove();
      this.element = null;
      this.started = false;
    }
  }

  /**
   * Whether it is worth the try that the frame calls this page directly. The proof is the call.
   * @param {string} domain
   */
  function shareDomain(domain) {
    if (!domain || window.originAgentCluster === true) return false;
    try {
      document.domain = domain;
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Call back once the page is loaded and opened: one that the browser makes in advance may never
   * be opened, and its frames are not loaded until it is.
   * @param {() => void} work
   */
  function whenOpened(work) {
    const again = () => whenOpened(work);
    if (/** @type {any} */ (document).prerendering) {
      document.addEventListener("prerenderingchange", again, { once: true });
    } else if (document.readyState !== "complete") {
      window.addEventListener("load", work, { once: true });
    } else {
      work();
    }
  }

  const CHANNEL = /^[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,127}$/;

  /**
   * @typedef {"connecting" | "live" | "delayed" | "retrying" | "waiting" | "signed_out" | "revoked"
   *   | "closed"} State
   * @typedef {{channel: string, offset: number, id: string, data: any, user?: string}} Publication
   * @typedef {(data: any, publication: Publication) => void} Subscriber
   * @typedef {object} Options
   * @property {string} server address of the push server
   * @property {TokenSource} token where this page gets a token from
   * @property {string} [documentDomain] as configured on the push server, which says it itself
   *   where this is left out; "" for postMessage
   * @property {string} [since] the cursor that the page's content corresponds to
   * @property {"auto" | "worker" | "locks" | "lease" | "none"} [share] how the pages of a user
   *   come to share one connection: the best way there is, one in particular, or not at all
   * @property {("websocket" | "stream" | "poll")[]} [transports] the only ones to be tried
   */

  /** Instances by their secret key, for the frame's direct calls. @type {Map<string, Page>} */
  const instances = new Map();

  /** @type {Page | null} the one a <push-status> shows */
  let latest = null;

  function randomId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** @param {unknown} channel */
  function checkChannel(channel) {
    if (typeof channel !== "string" || !CHANNEL.test(channel)) {
      throw new TypeError(`Not a channel name: ${channel}`);
    }
  }

  class Page {
    /** @param {Options} options */
    constructor({ server, token, documentDomain, since, share = "auto", transports }) {
      this.instance = randomId();
      this._server = new URL(server, location.href);
      this._desk = new TokenDesk(token, (code, message) => this._fail(code, message));
      this._frame = new PushFrame(this._server, {
        take: (messages) => this._takeAll(messages),
        silent: (message) => {
          this._fail("frame_silent", message);
          this._setState("retrying");
        },
      });
      this._documentDomain = documentDomain;
      /** @type {string | null} */
      this._since = since || null;
      this._share = share;
      this._transports = transports;
      this._key = randomId();
      /** @type {Map<string, Set<Subscriber>>} */
      this._subscribers = new Map();
      this._listeners = new Listeners();
      this._requests = new Requests((message) => this._frame.post(message));
      this._channelsDue = false;
      /** @type {string} the latest token */
      this._token = "";
      this._bridge = "";
      this._version = "";
      this._heardAt = 0;
      /** @type {PushError | null} */
      this._lastError = null;
      /** The connection's error that was last passed on; it repeats it with every status. */
      this._reported = "";
      /** @type {{state: State, transport: string, reason: string, connection: string,
       *   user: string, sharing: string}} */
      this._status = { state: "connecting", transport: "", reason: "", connection: "", user: "",
                       sharing: "" };
      instances.set(this._key, this);
      latest = this;
      for (const element of document.querySelectorAll("push-status")) {
        /** @type {any} */ (element).bind?.();
      }
      whenOpened(() => this._begin());
    }

    // ---- What a site uses

    /**
     * Be called for every publication of a channel.
     * @param {string} channel
     * @param {Subscriber} subscriber
     * @returns {() => void} ends exactly this subscription
     */
    subscribe(channel, subscriber) {
      checkChannel(channel);
      if (typeof subscriber !== "function") throw new TypeError("subscribe() needs a function");
      const subscribers = this._subscribers.get(channel) || new Set();
      subscribers.add(subscriber);
      this._subscribers.set(channel, subscribers);
      this._sendChannels();
      return () => this.unsubscribe(channel, subscriber);
    }

    /**
     * @param {string} channel
     * @param {Subscriber} [subscriber] all of the channel's, if left out
     */
    unsubscribe(channel, subscriber) {
      const subscribers = this._subscribers.get(channel);
      if (!subscribers) return;
      if (subscriber) subscribers.delete(subscriber);
      if (!subscriber || !subscribers.size) this._subscribers.delete(channel);
      this._sendChannels();
    }

    /**
     * Hear of `status` (info), `subscribed` (channels), `reset` (channels, reason), `recovered`
     * (channels), `revoked` (reason), `error` (PushError), or where the channel tells it, `join`
     * and `leave` (channel, users).
     * @param {string} name
     * @param {(...details: any[]) => void} listener
     * @returns {() => void} stops it
     */
    on(name, listener) {
      return this._listeners.add(name, listener);
    }

    /**
     * Publish; resolves to the place the publication got, {channel, epoch, offset, id,
     * duplicate}. Rejects with a PushError after several attempts. Publications of one page
     * arrive in the order in which they were made.
     * @param {string} channel
     * @param {any} data
     * @param {{echo?: boolean}} [how] echo: false keeps it from coming back to this page
     */
    publish(channel, data, { echo = true } = {}) {
      checkChannel(channel);
      // As it is now, and without what cannot be handed to a frame: a proxy, a function.
      const text = JSON.stringify(data);
      if (text === undefined) throw new TypeError("This cannot be published.");
      const exclude = echo ? {} : { exclude: this.instance };
      return this._request({ type: "publish", id: randomId(), channel, data: JSON.parse(text),
                             ...exclude });
    }

    /**
     * Who is in a channel now; resolves to {channel, count, anonymous, users}, the users being
     * {connections, name} by their id. Rejects with a PushError.
     * @param {string} channel one whose subscribers are told who comes and goes
     * @param {{limit?: number}} [how] limit: so many users are named at most
     */
    presence(channel, { limit } = {}) {
      checkChannel(channel);
      return this._request({ type: "presence", channel, limit });
    }

    /** What is going on, for a status page or a support call. */
    info() {
      const { state, transport, reason, connection, user, sharing } = this._status;
      const { code, message, status } = this._lastError || {};
      return {
        state,
        bridge: this._bridge,
        transport,
        transportReason: reason,
        sharing,
        connection,
        user,
        cursor: this._since,
        cursorAge: this._heardAt ? Date.now() - this._heardAt : null,
        lastError: code ? { code, message, status } : null,
        instance: this.instance,
        server: this._server.href,
        version: this._version,
      };
    }

    /** A small element that shows in words whether updates are coming. */
    statusElement() {
      const element = /** @type {any} */ (document.createElement("push-status"));
      element.push = this;
      return element;
    }

    /** Stop for good. */
    close() {
      if (!this._isOver()) this._end("closed", "This page closed its connection.");
    }

    // ---- Beginning and end

    async _begin() {
      this._token = await this._desk.first(() => !this._isOver(), () => this._setState("waiting"));
      if (this._isOver()) return;
      if (!this._token) {
        this._end("signed_out", "The site has no token for this visitor.");
      } else if (location.protocol === "https:" && this._server.protocol === "http:") {
        this._end("closed", "A page on https cannot use a push server on http.", "mixed_content");
      } else {
        this._frame.open();
      }
    }

    /** @param {State} state @param {string} message @param {string} [code] */
    _end(state, message, code = state) {
      this._frame.leave();
      this._requests.end(code, message);
      if (state !== "closed" || code !== state) this._fail(code, message);
      this._status = { ...this._status, connection: "", transport: "" };
      this._setState(state);
      instances.delete(this._key);
    }

    _isOver() {
      return ["signed_out", "revoked", "closed"].includes(this._status.state);
    }

    // ---- To the frame

    /** @param {{version: string, documentDomain: string}} frame */
    _start({ version, documentDomain }) {
      this._version = version;
      const wanted = this._documentDomain ?? documentDomain;
      const agreed = documentDomain === wanted && shareDomain(documentDomain);
      this._frame.start({
        key: this._key, instance: this.instance, token: this._token,
        channels: [...this._subscribers.keys()], since: this._since, share: this._share,
        transports: this._transports, documentDomain: agreed ? documentDomain : "",
      });
      this._requests.repeat();
    }

    /** Several calls of subscribe() in a row are one message. */
    _sendChannels() {
      if (this._channelsDue) return;
      this._channelsDue = true;
      queueMicrotask(() => {
        this._channelsDue = false;
        this._frame.post({ type: "channels", channels: [...this._subscribers.keys()] });
      });
    }

    /** @param {any} wanted @returns {Promise<any>} */
    _request(wanted) {
      if (!this._isOver()) return this._requests.make(wanted);
      const message = "This page is not connected any more.";
      return Promise.reject(new PushError(this._status.state, message));
    }

    // ---- From the frame

    /** @param {any[]} messages */
    _takeAll(messages) {
      for (const message of messages) {
        if (!this._isOver() || message.type === "answer") this._take(message);
      }
    }

    /** @param {any} message */
    _take(message) {
      if (message.cursor) this._since = message.cursor;
      if (message.at) this._heardAt = message.at;
      if (message.type === "publications") this._deliver(message.items);
      else if (message.type === "ready") this._start(message);
      else if (message.type === "bridge") this._bridge = message.bridge;
      else if (message.type === "status") this._setStatus(message.status);
      else if (message.type === "token") this._answerToken();
      else if (message.type === "answer") this._requests.settle(message);
      else if (message.type === "reset") this._reset(message);
      else if (message.type === "join" || message.type === "leave") this._present(message);
      else if (message.type === "denied") this._denied(message.channels, message.code);
      else if (message.type === "revoked") this._revoked("revoked", "The session is over.");
      else if (message.type === "released") this._released(message.reason);
      else if (EVENTS.includes(message.type)) this._listeners.tell(message.type, message.channels);
    }

    /** @param {Publication[]} publications */
    _deliver(publications) {
      for (const publication of publications) {
        for (const subscriber of [...(this._subscribers.get(publication.channel) || [])]) {
          callSite(subscriber, publication.data, publication);
        }
      }
    }

    /**
     * Where many lose something at once, the server gives each a delay, so that the site is not
     * asked by all of them in the same second.
     * @param {{channels: string[], reason: string, delay?: number}} message
     */
    _reset({ channels, reason, delay = 0 }) {
      const tell = () => this._isOver() || this._listeners.tell("reset", channels, reason);
      if (delay) setTimeout(tell, delay);
      else tell();
    }

    /** @param {{type: string, channel: string, users: object[]}} message */
    _present({ type, channel, users }) {
      this._listeners.tell(type, channel, users);
    }

    async _answerToken() {
      const answer = await this._desk.ask();
      if (answer.token) this._token = answer.token;
      this._frame.post({ type: "token", ...answer });
    }

    /** @param {string[]} channels @param {string} code */
    _denied(channels, code) {
      const why = code === "channel_denied"
        ? "The token does not grant these channels" : "There are too many channels";
      this._fail(code, `${why}: ${channels.join(", ")}`, { status: 403, channels });
    }

    /** @param {string} reason */
    _released(reason) {
      if (reason === "user_changed") {
        this._revoked(reason, "Somebody else is signed in now: reload the page.");
      } else {
        this._end("signed_out", "The site has no token for this visitor any more.");
      }
    }

    /** @param {string} reason @param {string} message */
    _revoked(reason, message) {
      this._end("revoked", message, reason);
      this._listeners.tell("revoked", reason);
    }

    // ---- What listeners are told

    /** @param {any} status */
    _setStatus({ error, heardAt, ...status }) {
      const before = JSON.stringify(this._status);
      if (heardAt) this._heardAt = heardAt;
      Object.assign(this._status, status);
      const code = error?.code || "";
      if (code && code !== this._reported) this._fail(code, error.message, error);
      this._reported = code;
      if (JSON.stringify(this._status) !== before) this._listeners.tell("status", this.info());
    }

    /** @param {State} state */
    _setState(state) {
      if (this._status.state === state) return;
      this._status = { ...this._status, state };
      this._listeners.tell("status", this.info());
    }

    /** @param {string} code @param {string} message @param {object} [more] */
    _fail(code, message, more = {}) {
      this._lastError = new PushError(code, message, more);
      this._listeners.tell("error", this._lastError);
    }
  }

  const SHOWN = {
    connecting: ["Connecting…", "#8a8f98"],
    live: ["Live", "#1a7f37"],
    delayed: ["Delayed", "#9a6700"],
    retrying: ["Reconnecting…", "#9a6700"],
    waiting: ["Waiting for the site…", "#9a6700"],
    signed_out: ["Signed out", "#8a8f98"],
    revoked: ["Signed out", "#8a8f98"],
    closed: ["Off", "#8a8f98"],
  };
  const CALM = 1000;

  class PushStatus extends HTMLElement {
    constructor() {
      super();
      /** @type {Page | null} the connection it shows; the latest one unless set */
      this.push = null;
      /** @type {Page | null} what that is now */
      this._shown = null;
      this._dot = document.createElement("span");
      this._text = document.createElement("span");
      /** @type {any} */
      this._timer = 0;
      /** @type {() => void} */
      this._stop = () => undefined;
    }

    connectedCallback() {
      this.setAttribute("role", "status");
      Object.assign(this.style, { display: "inline-flex", alignItems: "center", gap: "0.4em" });
      this._dot.setAttribute("aria-hidden", "true");
      Object.assign(this._dot.style, { width: "0.6em", height: "0.6em", borderRadius: "50%",
                                       flex: "none" });
      this.replaceChildren(this._dot, this._text);
      this.bind();
    }

    /** Show a connection from now on, once there is one; called again when there is another. */
    bind() {
      this._shown = this.push || latest;
      if (!this._shown || !this.isConnected) return;
      this._stop();
      this._stop = this._shown.on("status", () => this._changed());
      this._show();
    }

    disconnectedCallback() {
      clearTimeout(this._timer);
      this._stop();
    }

    _changed() {
      clearTimeout(this._timer);
      const wait = this._shown?.info().state === "retrying" ? CALM : 0;
      this._timer = setTimeout(() => this._show(), wait);
    }

    _show() {
      const shown = /** @type {Page} */ (this._shown);
      const { state, transport, transportReason, lastError } = shown.info();
      const [text, colour] = SHOWN[state];
      this.dataset.state = state;
      this._dot.style.background = colour;
      if (this._text.textContent !== text) this._text.textContent = text;
      this.title = state === "live"
        ? `${transport}${transportReason ? ` (${transportReason})` : ""}`
        : lastError?.message || "";
    }
  }

  if (!customElements.get("push-status")) customElements.define("push-status", PushStatus);

  window.Push = Object.freeze({
    /** @param {Options} options */
    connect: (options) => new Page(options),

    Error: PushError,

    /**
     * Called by the frame, where document.domain allows it. The key was given to the frame alone.
     * @param {string} key
     * @param {string} text
     * @returns {string} the proof asked for, if any
     */
    receive(key, text) {
      const page = instances.get(key);
      const messages = JSON.parse(text);
      if (!page) return "";
      page._takeAll(messages);
      return messages[0]?.type === "proof" ? messages[0].proof : "";
    },
  });
})();
