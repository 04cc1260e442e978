/**
 * The connection as a page of the site sees it.
 *
 * Rules that hold in this file:
 * - Nothing is loaded before the page's `load` event, nor before somebody sees a page that was made
 *   in advance, and nothing at all from the push server for a visitor without a token.
 * - Names that begin with `_` are not for sites.
 *
 * Part of push.js. Needs errors.js, events.js, requests.js, token.js and frame.js.
 */
"use strict";

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
