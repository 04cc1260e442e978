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
 * server in the page's Content-Security-Policy, if it has one, and nothing else.
 */
"use strict";

(() => {
  const CHANNEL = /^[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,127}$/;
  const TOKEN = /^\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+=*$/;
  const MAX_TOKEN = 4096;
  /** The frame has to load in this time, and then to answer in that; else the server is away, or
   * refuses this site: browsers fire `load` for their error pages too. */
  const LOAD_TIMEOUT = 30000;
  const ANSWER_TIMEOUT = 3000;
  /** Delays between attempts to get a first token or to load the frame, with full jitter. */
  const RETRY_BASE = 1000;
  const RETRY_CAP = 60000;
  const EVENTS = ["status", "subscribed", "reset", "recovered", "revoked", "error", "join",
                  "leave"];

  /**
   * @typedef {"connecting" | "live" | "delayed" | "retrying" | "waiting" | "signed_out" | "revoked"
   *   | "closed"} State
   * @typedef {{channel: string, offset: number, id: string, data: any, user?: string}} Publication
   * @typedef {(data: any, publication: Publication) => void} Subscriber
   * @typedef {string | null | undefined | Response} TokenAnswer
   * @typedef {object} Options
   * @property {string} server address of the push server
   * @property {string | (() => TokenAnswer | Promise<TokenAnswer>)} token where this page gets
   *   a token from: a path of the site, or a function that returns the token or a Response
   * @property {string} [documentDomain] as configured on the push server; "" for postMessage
   * @property {string} [since] the cursor that the page's content corresponds to
   * @property {"auto" | "worker" | "locks" | "lease" | "none"} [share] how the pages of a user
   *   come to share one connection: the best way there is, one in particular, or not at all
   * @property {("websocket" | "stream" | "poll")[]} [transports] the only ones to be tried
   */

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

  function randomId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Report an error of the site's own code as if nobody had called it. @param {unknown} error */
  function reportLater(error) {
    setTimeout(() => {
      throw error;
    });
  }

  /** Instances by their secret key, for the frame's direct calls. @type {Map<string, Page>} */
  const instances = new Map();

  /** @type {Page | null} the one a <push-status> shows */
  let latest = null;

  class Page {
    /** @param {Options} options */
    constructor({ server, token, documentDomain = "", since, share = "auto", transports }) {
      this.instance = randomId();
      this._server = new URL(server, location.href);
      this._source = token;
      this._documentDomain = documentDomain;
      /** @type {string | null} */
      this._since = since || null;
      this._share = share;
      this._transports = transports;
      this._key = randomId();
      /** @type {Map<string, Set<Subscriber>>} */
      this._subscribers = new Map();
      /** @type {Map<string, Set<(...details: any[]) => void>>} */
      this._listeners = new Map(EVENTS.map((name) => [name, new Set()]));
      /** @type {Map<number, {done: (result: any) => void, fail: (error: PushError) => void,
       *   message: any}>} publications that wait for their answer */
      this._unanswered = new Map();
      this._requests = 0;
      /** @type {MessagePort | null} */
      this._port = null;
      /** @type {HTMLIFrameElement | null} */
      this._frame = null;
      this._started = false;
      this._channelsDue = false;
      this._attempt = 0;
      /** @type {any} */
      this._timer = 0;
      /** @type {string} the first token, until the frame has it */
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
      if (document.readyState === "complete") this._begin();
      else window.addEventListener("load", () => this._begin(), { once: true });
    }

    // ---- What a site uses

    /**
     * Be called for every publication of a channel.
     * @param {string} channel
     * @param {Subscriber} subscriber
     * @returns {() => void} ends exactly this subscription
     */
    subscribe(channel, subscriber) {
      if (!CHANNEL.test(channel)) throw new TypeError(`Not a channel name: ${channel}`);
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
      const listeners = this._listeners.get(name);
      if (!listeners) throw new TypeError(`No such event: ${name}. There are ${EVENTS.join(", ")}`);
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
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
      if (!CHANNEL.test(channel)) throw new TypeError(`Not a channel name: ${channel}`);
      if (data === undefined) throw new TypeError("undefined cannot be published");
      return new Promise((done, fail) => {
        if (this._isOver()) {
          fail(new PushError(this._status.state, "This page is not connected any more."));
          return;
        }
        this._requests += 1;
        const message = { type: "publish", request: this._requests, channel, data,
                          ...(echo ? {} : { exclude: this.instance }) };
        this._unanswered.set(this._requests, { done, fail, message });
        if (this._started) this._port?.postMessage(message);
      });
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
      this._token = await this._firstToken();
      if (this._token && !this._isOver()) this._openFrame();
    }

    /** The token to begin with, however long it takes; "" if there is none to be had. */
    async _firstToken() {
      for (let attempt = 0; !this._isOver(); attempt += 1) {
        const answer = await this._askSite();
        if (answer.token) return answer.token;
        if (answer.signedOut) {
          this._end("signed_out", "The site has no token for this visitor.");
          break;
        }
        this._setState("waiting");
        await new Promise((done) => setTimeout(done, backoff(attempt)));
      }
      return "";
    }

    /**
     * Ask the site for a token. Nobody is signed in: {signedOut: true}. The site is in
     * trouble: {}, and a later attempt may succeed.
     * @returns {Promise<{token?: string, signedOut?: boolean}>}
     */
    async _askSite() {
      try {
        const source = this._source;
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
        const { status, code, message } = /** @type {any} */ (error);
        if (status === 401 || status === 403) return { signedOut: true };
        this._fail(code || "token_unavailable", message);
        return {};
      }
    }

    _openFrame() {
      if (location.protocol === "https:" && this._server.protocol === "http:") {
        this._end("closed", "A page on https cannot use a push server on http.", "mixed_content");
        return;
      }
      const frame = document.createElement("iframe");
      const base = this._server.href.replace(/\/?$/, "/");
      frame.src = new URL("frame", base).href;
      frame.title = "Live updates";
      frame.tabIndex = -1;
      frame.setAttribute("aria-hidden", "true");
      // Inside the viewport and displayed: browsers slow down frames that are neither.
      Object.assign(frame.style, { position: "fixed", left: "0", bottom: "0", width: "1px",
                                   height: "1px", border: "0", opacity: "0",
                                   pointerEvents: "none" });
      frame.addEventListener("load", () => this._meetFrame(frame));
      this._frame = frame;
      document.body.append(frame);
      this._giveFrame(LOAD_TIMEOUT);
    }

    /** @param {number} time */
    _giveFrame(time) {
      clearTimeout(this._timer);
      this._timer = setTimeout(() => this._frameSilent(), time);
    }

    /** A document was loaded into the frame: ours, a newer one of ours, or an error page. */
    _meetFrame(/** @type {HTMLIFrameElement} */ frame) {
      if (frame !== this._frame) return;
      this._port?.close();
      this._started = false;
      this._giveFrame(ANSWER_TIMEOUT);
      const { port1, port2 } = new MessageChannel();
      this._port = port1;
      port1.onmessage = ({ data }) => this._takeAll(data);
      // Only a document of the push server can receive this, and with it the port.
      frame.contentWindow?.postMessage({ push: "connect" }, this._server.origin, [port2]);
    }

    _frameSilent() {
      const message = "The frame did not answer: the push server is away, or it does not know " +
        `the origin ${location.origin}.`;
      this._fail("frame_silent", message);
      this._setState("retrying");
      this._dropFrame();
      this._timer = setTimeout(() => this._openFrame(), backoff(++this._attempt));
    }

    _dropFrame() {
      clearTimeout(this._timer);
      this._port?.close();
      this._port = null;
      this._frame?.remove();
      this._frame = null;
      this._started = false;
    }

    /** @param {State} state @param {string} message @param {string} [code] */
    _end(state, message, code = state) {
      this._port?.postMessage({ type: "close" });
      for (const { fail } of this._unanswered.values()) fail(new PushError(code, message));
      this._unanswered.clear();
      if (state !== "closed" || code !== state) this._fail(code, message);
      this._status = { ...this._status, connection: "", transport: "" };
      this._setState(state);
      // The frame has to read the goodbye before it goes.
      clearTimeout(this._timer);
      this._timer = setTimeout(() => this._dropFrame(), 100);
      instances.delete(this._key);
    }

    _isOver() {
      return ["signed_out", "revoked", "closed"].includes(this._status.state);
    }

    // ---- To the frame

    /** @param {string} version @param {string} theirDomain */
    _start(version, theirDomain) {
      clearTimeout(this._timer);
      this._attempt = 0;
      this._version = version;
      this._started = true;
      const agreed = theirDomain === this._documentDomain && this._setDomain(theirDomain);
      this._port?.postMessage({
        type: "start", key: this._key, instance: this.instance, token: this._token,
        channels: [...this._subscribers.keys()], since: this._since, share: this._share,
        transports: this._transports,
        documentDomain: agreed ? theirDomain : "",
      });
      for (const { message } of this._unanswered.values()) this._port?.postMessage(message);
    }

    /** Whether it is worth the try. The proof is the frame's call. @param {string} domain */
    _setDomain(domain) {
      if (!domain || window.originAgentCluster === true) return false;
      try {
        document.domain = domain;
        return true;
      } catch {
        return false;
      }
    }

    /** Several calls of subscribe() in a row are one message. */
    _sendChannels() {
      if (this._channelsDue) return;
      this._channelsDue = true;
      queueMicrotask(() => {
        this._channelsDue = false;
        if (!this._started) return;
        const channels = [...this._subscribers.keys()];
        this._port?.postMessage({ type: "channels", channels });
      });
    }

    // ---- From the frame

    /** @param {any[]} messages */
    _takeAll(messages) {
      for (const message of messages) {
        if (!this._isOver() || message.type === "published") this._take(message);
      }
    }

    /** @param {any} message */
    _take(message) {
      if (message.cursor) this._since = message.cursor;
      if (message.at) this._heardAt = message.at;
      if (message.type === "publications") this._deliver(message.items);
      else if (message.type === "ready") this._start(message.version, message.documentDomain);
      else if (message.type === "bridge") this._bridge = message.bridge;
      else if (message.type === "status") this._setStatus(message.status);
      else if (message.type === "token") this._answerToken();
      else if (message.type === "published") this._settle(message);
      else if (message.type === "reset") this._reset(message);
      else if (message.type === "join" || message.type === "leave") this._present(message);
      else if (message.type === "denied") this._denied(message.channels, message.code);
      else if (message.type === "revoked") this._revoked("revoked", "The session is over.");
      else if (message.type === "released") this._released(message.reason);
      else if (EVENTS.includes(message.type)) this._emit(message.type, message.channels);
    }

    /** @param {Publication[]} publications */
    _deliver(publications) {
      for (const publication of publications) {
        for (const subscriber of [...(this._subscribers.get(publication.channel) || [])]) {
          try {
            subscriber(publication.data, publication);
          } catch (error) {
            reportLater(error);
          }
        }
      }
    }

    /**
     * Where many lose something at once, the server gives each a delay, so that the site is not
     * asked by all of them in the same second.
     * @param {{channels: string[], reason: string, delay?: number}} message
     */
    _reset({ channels, reason, delay = 0 }) {
      const tell = () => this._isOver() || this._emit("reset", channels, reason);
      if (delay) setTimeout(tell, delay);
      else tell();
    }

    /** @param {{type: string, channel: string, users: object[]}} message */
    _present({ type, channel, users }) {
      this._emit(type, channel, users);
    }

    async _answerToken() {
      const answer = await this._askSite();
      if (answer.token) this._token = answer.token;
      this._port?.postMessage({ type: "token", ...answer });
    }

    /** @param {any} message */
    _settle({ request, result, error }) {
      const waiting = this._unanswered.get(request);
      this._unanswered.delete(request);
      if (result) waiting?.done(result);
      else waiting?.fail(new PushError(error.code, error.message, { status: error.status }));
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
      this._emit("revoked", reason);
    }

    /** @param {any} status */
    _setStatus({ error, heardAt, ...status }) {
      const before = JSON.stringify(this._status);
      if (heardAt) this._heardAt = heardAt;
      Object.assign(this._status, status);
      const code = error?.code || "";
      if (code && code !== this._reported) this._fail(code, error.message, error);
      this._reported = code;
      if (JSON.stringify(this._status) !== before) this._emit("status", this.info());
    }

    /** @param {State} state */
    _setState(state) {
      if (this._status.state === state) return;
      this._status = { ...this._status, state };
      this._emit("status", this.info());
    }

    /** @param {string} code @param {string} message @param {object} [more] */
    _fail(code, message, more = {}) {
      this._lastError = new PushError(code, message, more);
      this._emit("error", this._lastError);
    }

    /** @param {string} name @param {...any} details */
    _emit(name, ...details) {
      for (const listener of [...(this._listeners.get(name) || [])]) {
        try {
          listener(...details);
        } catch (error) {
          reportLater(error);
        }
      }
    }
  }

  // ---- The status element

  /** Words for every state; the colour only repeats them. */
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
  /** A short interruption is not worth an announcement. */
  const CALM = 1000;

  class PushStatus extends HTMLElement {
    constructor() {
      super();
      /** @type {Page | null} the connection it shows; the latest one unless set */
      this.push = null;
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

    /** Show a connection from now on, once there is one. */
    bind() {
      this.push = this.push || latest;
      if (!this.push || !this.isConnected) return;
      this._stop();
      this._stop = this.push.on("status", () => this._changed());
      this._show();
    }

    disconnectedCallback() {
      clearTimeout(this._timer);
      this._stop();
    }

    _changed() {
      clearTimeout(this._timer);
      const wait = this.push?.info().state === "retrying" ? CALM : 0;
      this._timer = setTimeout(() => this._show(), wait);
    }

    _show() {
      const push = /** @type {Page} */ (this.push);
      const { state, transport, transportReason, lastError } = push.info();
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
