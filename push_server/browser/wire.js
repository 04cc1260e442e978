/**
 * What the browser and the server say to each other: names, tokens, requests.
 *
 * Rules that hold in this file:
 * - No state and no policy. When to connect, when to give up and what to tell the pages is
 *   decided elsewhere; here one request is made, or one value is checked.
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
   * @param {string[]} [transports] the only ones that the page wants
   */
  function workerName(version, origin, claims, transports = []) {
    if (!claims) return `push ${version} alone ${randomId()}`;
    const wants = shortHash(JSON.stringify([claims.sub_ch || [], transports]));
    return `push ${version} ${JSON.stringify([origin, claims.sub, claims.sid, wants])}`;
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

  return Object.freeze({
    Refusal, backoff, isChannel, isToken, randomId, readToken, request, within, workerName,
  });
})();
