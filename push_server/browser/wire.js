/**
 * What the browser and the server say to each other: names, tokens, requests, transports.
 *
 * Rules that hold in this file:
 * - No state and no policy. When to connect, when to give up and what to tell the pages is
 *   decided in connection.js; here one request is made, or one value is checked.
 * - The token travels in the Authorization header only, never in a URL, and is never logged.
 * - Nothing that arrives is evaluated. JSON.parse is the only parser.
 *
 * Used by every other file of the push origin, in the SharedWorker and in the frame. A classic
 * script without dependencies; the names are gathered in `PushWire`.
 */
"use strict";

/**
 * @typedef {{type: string, cursor?: string, [member: string]: any}} Control
 * @typedef {{channel: string, offset: number, id: string, data: any, user?: string,
 *   exclude?: string, cursor?: string}} Publication
 * @typedef {{sub: string, sid: string, iat: number, exp: number, sub_ch?: string[]}} Claims
 */

globalThis.PushWire = (() => {
  /** The longest token the server looks at. */
  const MAX_TOKEN = 4096;
  /** A line longer than this is no publication of ours: bodies end at 256 KiB, in ASCII escapes. */
  const MAX_LINE = 4 * 1024 * 1024;
  /** Seconds the server may hold a poll, and how much longer than that we wait for the answer. */
  const POLL_SECONDS = 25;
  const POLL_GRACE = 10;
  /** A held poll that comes back empty within these milliseconds was not held. */
  const HASTY = 1000;
  /** Reconnect delays: full jitter below a ceiling that doubles. Milliseconds. */
  const BACKOFF_BASE = 500;
  const BACKOFF_CAP = 30000;

  const CHANNEL = /^[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,127}$/;
  const TOKEN = /^\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+=*$/;

  /** An answer that is not the one hoped for. Status 0 means that there was no answer at all. */
  class Refusal extends Error {
    /**
     * @param {number} status
     * @param {string} code
     * @param {string} message
     * @param {number} [retryAfter] milliseconds the server asks us to wait
     */
    constructor(status, code, message, retryAfter = 0) {
      super(message);
      this.name = "Refusal";
      this.status = status;
      this.code = code;
      this.retryAfter = retryAfter;
    }

    /** Whether the same request may succeed later. Anything else in 4xx never will. */
    get passing() {
      return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
    }
  }

  /** Whether a client may speak of such a channel. @param {unknown} name */
  function isChannel(name) {
    return typeof name === "string" && CHANNEL.test(name);
  }

  /** Whether this could be a token: an error page or a login form is not. @param {unknown} text */
  function isToken(text) {
    return typeof text === "string" && text.length <= MAX_TOKEN && TOKEN.test(text);
  }

  /** 128 random bits in hex. randomUUID() does not exist on plain http. */
  function randomId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /**
   * Milliseconds to wait before attempt number `attempt` (0 is the first repetition).
   * Full jitter: ten thousand browsers that lost one server must not come back together.
   * @param {number} attempt
   * @param {number} [random] in [0, 1)
   */
  function backoff(attempt, random = Math.random()) {
    return Math.floor(random * Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** Math.min(attempt, 16)));
  }

  /** Wait, but not longer than until the signal. @param {number} ms @param {AbortSignal} signal */
  function pause(ms, signal) {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        done(undefined);
      });
    });
  }

  /** Cuts decoded text into lines, however it was cut into chunks on the way. */
  class LineSplitter {
    constructor() {
      /** @type {string[]} parts of a line whose end has not come yet */
      this.parts = [];
      this.length = 0;
    }

    /**
     * The lines that this chunk completes, without empty ones.
     * @param {string} chunk
     * @returns {string[]}
     */
    push(chunk) {
      const pieces = chunk.split("\n");
      const rest = /** @type {string} */ (pieces.pop());
      const lines = [];
      for (const piece of pieces) {
        const line = this.parts.length ? this.parts.join("") + piece : piece;
        this.parts = [];
        this.length = 0;
        if (line.trim()) lines.push(line);
      }
      if (rest) {
        this.parts.push(rest);
        this.length += rest.length;
      }
      if (this.length > MAX_LINE) throw new Refusal(0, "line_too_long", "A line has no end.");
      return lines;
    }
  }

  /** The bytes of unpadded base64url text. @param {string} text */
  function fromBase64Url(text) {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (character) => character.charCodeAt(0));
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes zlib data of a few KiB at most */
  async function inflate(bytes) {
    const body = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(body).arrayBuffer());
  }

  /**
   * The claims inside a token, unverified: good for naming and timing, for no decision about
   * rights (the server makes those). Null when they cannot be read here.
   * @param {string} token
   * @returns {Promise<Claims | null>}
   */
  async function readToken(token) {
    if (!isToken(token)) return null;
    try {
      const packed = token.startsWith(".");
      const payload = fromBase64Url(token.slice(packed ? 1 : 0, token.lastIndexOf(".")));
      const text = new TextDecoder().decode(packed ? await inflate(payload) : payload);
      const claims = { sid: "", ...JSON.parse(text) };
      const whole =
        typeof claims.sub === "string" &&
        typeof claims.sid === "string" &&
        Number.isFinite(claims.iat) &&
        Number.isFinite(claims.exp);
      return whole ? claims : null;
    } catch {
      return null;
    }
  }

  /** FNV-1a, to keep names short; it protects nothing. @param {string} text */
  function shortHash(text) {
    let hash = 0x811c9dc5;
    for (let index = 0; index < text.length; index += 1) {
      hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
    }
    return (hash >>> 0).toString(36);
  }

  /**
   * The name under which pages share a worker. Pages share one connection only when the same
   * site asks for the same user, session and channel rights with the same version of the
   * scripts; a page that differs in any of these must not even see the other's worker.
   * @param {string} version
   * @param {string} origin of the page, as the browser reported it
   * @param {Claims | null} claims
   */
  function workerName(version, origin, claims) {
    if (!claims) return `push ${version} alone ${randomId()}`;
    const rights = shortHash(JSON.stringify(claims.sub_ch || []));
    return `push ${version} ${JSON.stringify([origin, claims.sub, claims.sid, rights])}`;
  }

  /** Milliseconds of a Retry-After header in seconds, 0 without one. @param {Response} response */
  function retryAfter(response) {
    const seconds = Number(response.headers.get("retry-after"));
    return seconds > 0 ? Math.min(seconds, 3600) * 1000 : 0;
  }

  /** The error that a refused request stands for. @param {Response} response */
  async function refusal(response) {
    /** @type {{code?: unknown, message?: unknown}} */
    let error = {};
    try {
      error = (await response.json()).error || {};
    } catch {
      // A proxy answered with a page of its own: the status says all there is to know.
    }
    const code = typeof error.code === "string" ? error.code : `http_${response.status}`;
    const message = typeof error.message === "string" ? error.message : response.statusText;
    return new Refusal(response.status, code, message || code, retryAfter(response));
  }

  /**
   * One request to the push server. Never sends cookies and never follows a redirect: either
   * would hand the token to a place that nobody configured.
   * @param {string} path relative to this script
   * @param {{token: string, signal?: AbortSignal, body?: string}} options
   * @returns {Promise<Response>} a response with status 2xx; anything else rejects with Refusal
   */
  async function request(path, { token, signal, body }) {
    /** @type {Response} */
    let response;
    try {
      response = await fetch(path, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          Authorization: `Bearer ${token}`,
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        },
        body,
        signal,
        // Firefox lets equal GETs wait for each other unless the cache is out of the way.
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
    } catch (error) {
      throw new Refusal(0, "network", String(error));
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /**
   * A request with a limit on its whole duration, the body included.
   * @template T
   * @param {number} milliseconds
   * @param {AbortSignal | undefined} outer
   * @param {(signal: AbortSignal) => Promise<T>} work
   * @returns {Promise<T>}
   */
  async function within(milliseconds, outer, work) {
    const limit = new AbortController();
    const stop = () => limit.abort();
    const timer = setTimeout(stop, milliseconds);
    outer?.addEventListener("abort", stop);
    try {
      if (outer?.aborted) stop();
      return await work(limit.signal);
    } catch (error) {
      throw error instanceof Refusal ? error : new Refusal(0, "network", String(error));
    } finally {
      clearTimeout(timer);
      outer?.removeEventListener("abort", stop);
    }
  }

  /**
   * The query of a subscribe request.
   * @param {{channels: string[], since?: string | null, timeout?: number,
   *   fallback?: string}} wanted
   */
  function subscribeQuery({ channels, since, timeout, fallback }) {
    const query = new URLSearchParams(channels.map((name) => ["channel", name]));
    if (since) query.set("since", since);
    if (timeout !== undefined) query.set("timeout", String(timeout));
    if (fallback) query.set("fallback", fallback);
    return query.toString();
  }

  /**
   * One poll.
   * @param {{token: string, signal?: AbortSignal, onResponse?: (response: Response) => void,
   *   channels: string[], since?: string | null, timeout?: number, fallback?: string}} wanted
   * @returns {Promise<{cursor: string, publications: Publication[], control: Control[]}>}
   */
  function pollOnce(wanted) {
    const seconds = wanted.timeout === undefined ? POLL_SECONDS : wanted.timeout;
    const path = `subscribe/poll?${subscribeQuery({ ...wanted, timeout: seconds })}`;
    return within((seconds + POLL_GRACE) * 1000, wanted.signal, async (signal) => {
      const response = await request(path, { token: wanted.token, signal });
      wanted.onResponse?.(response);
      const answer = await response.json();
      if (typeof answer?.cursor !== "string") {
        throw new Refusal(0, "not_ours", "The answer is not one of a push server.");
      }
      return { cursor: answer.cursor, publications: answer.publications || [],
               control: answer.control || [] };
    });
  }

  /**
   * @typedef {object} Wanted what a transport needs; `ask` is called anew for every request
   * @property {() => {token: string, channels: string[], since: string | null,
   *   fallback?: string}} ask
   * @property {AbortSignal} signal
   * @property {(response: Response) => void} onResponse
   */

  /**
   * One JSON value per line on one endless response. Yields what each read brought.
   * @param {Wanted} wanted
   * @returns {AsyncGenerator<(Control | Publication)[]>}
   */
  async function* stream({ ask, signal, onResponse }) {
    const now = ask();
    const response = await request(`subscribe/stream?${subscribeQuery(now)}`,
                                   { token: now.token, signal });
    onResponse(response);
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const decoder = new TextDecoder();
    const splitter = new LineSplitter();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const lines = splitter.push(decoder.decode(value, { stream: true }));
        if (lines.length) yield lines.map((line) => JSON.parse(line));
      }
    } finally {
      reader.cancel().catch(() => undefined);
    }
  }

  /**
   * Long poll: the same messages, one answer after the other.
   * @param {Wanted} wanted
   * @returns {AsyncGenerator<(Control | Publication)[]>}
   */
  async function* poll({ ask, signal, onResponse }) {
    // The first answer must come at once: it shows that the server is there.
    let hasty = 0;
    for (let timeout = 0; ; timeout = POLL_SECONDS) {
      const begun = Date.now();
      const answer = await pollOnce({ ...ask(), timeout, signal, onResponse });
      // Every message of a stream carries the cursor after it; an answer has one for all, so
      // it may count only when all of them have been handed over.
      yield [...answer.control.map(({ cursor, ...rest }) => rest), ...answer.publications,
             { type: "cursor", cursor: answer.cursor }];
      // Something on the way that answers in the server's place must not be asked in a loop.
      const empty = timeout && !answer.publications.length && Date.now() - begun < HASTY;
      hasty = empty ? hasty + 1 : 0;
      if (hasty > 1) await pause(backoff(hasty), signal);
    }
  }

  /**
   * The transports, best first. A new one is one entry: `supported()` looks at the browser,
   * `run()` yields lists of messages until it is aborted, ends, or throws; `beats` says whether
   * its silence means something (the requests of the others have limits of their own).
   */
  const TRANSPORTS = [
    {
      name: "stream",
      supported: () => typeof ReadableStream === "function" && "body" in Response.prototype,
      run: stream,
      beats: true,
    },
    { name: "poll", supported: () => true, run: poll, beats: false },
  ];

  return Object.freeze({
    LineSplitter, Refusal, TRANSPORTS, backoff, isChannel, isToken, pollOnce, randomId, readToken,
    request, subscribeQuery, within, workerName,
  });
})();
