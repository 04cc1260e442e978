/**
 * How publications come: one function per transport, one table of them, and the choice.
 *
 * Rules that hold in this file:
 * - A transport yields lists of messages, whatever it does on the wire. It makes no decision: it
 *   runs until it is aborted, ends, or throws.
 * - A transport is left only when it was proved not to work while another did. That is remembered
 *   for a while, with the reason, and then the better one gets another chance.
 * - No transport asks again and again on a timer: there is no interval polling.
 *
 * Used by dialer.js and pages.js. Needs wire.js and websocket.js.
 */
"use strict";

/** @typedef {{reason: string, until: number, times: number}} Avoided */

globalThis.PushTransports = (() => {
  const { Refusal, backoff, request, within } = globalThis.PushWire;

  /** A line longer than this is no publication of ours: bodies end at 256 KiB, in ASCII escapes. */
  const MAX_LINE = 4 * 1024 * 1024;
  /** Seconds the server may hold a poll, and how much longer than that we wait for the answer. */
  const POLL_SECONDS = 25;
  const POLL_GRACE = 10;
  /** A held poll that comes back empty within these milliseconds was not held. */
  const HASTY = 1000;
  /** How long a transport that was proved not to work is left alone; doubled each time. */
  const AVOID = 10 * 60 * 1000;
  const AVOID_CAP = 60 * 60 * 1000;

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
   * @property {(line: {send: (method: string, params: object) => void,
   *   ask: (method: string, params: object) => Promise<any> | null}) => void} onLine
   *   is given the way to ask for something in the connection, where the transport has one
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
   * its silence means something (the requests of the others have limits of their own), `changes`
   * whether it can take up other channels and another token while it runs.
   */
  const TRANSPORTS = [
    {
      name: "websocket",
      supported: () => typeof WebSocket === "function",
      run: globalThis.PushWebSocket,
      beats: true,
      changes: true,
    },
    {
      name: "stream",
      supported: () => typeof ReadableStream === "function" && "body" in Response.prototype,
      run: stream,
      beats: true,
      changes: false,
    },
    { name: "poll", supported: () => true, run: poll, beats: false, changes: false },
  ];

  /** Which transport to use here and now. */
  class Choice {
    constructor() {
      /** @type {Map<string, Avoided>} */
      this.avoided = new Map();
      /** @type {string[] | null} the only ones that the site wants, if it said so */
      this.allowed = null;
    }

    /** What an earlier visit found out. @param {[string, Avoided][]} avoided */
    recall(avoided) {
      for (const [name, why] of avoided) {
        if (!this.avoided.has(name)) this.avoided.set(name, why);
      }
    }

    /** @param {unknown} names of transports */
    allow(names) {
      const known = TRANSPORTS.map(({ name }) => name);
      const allowed = Array.isArray(names) ? known.filter((name) => names.includes(name)) : [];
      this.allowed = allowed.length ? allowed : null;
    }

    /** Those that the site wants, best first. */
    get wanted() {
      return TRANSPORTS.filter(({ name }) => !this.allowed || this.allowed.includes(name));
    }

    /** Those of them that the browser has. */
    get usable() {
      const usable = this.wanted.filter(({ supported }) => supported());
      return usable.length ? usable : TRANSPORTS.slice(-1);
    }

    /** The best that may work; the last one if none may. */
    best() {
      const { usable } = this;
      return usable.find(({ name }) => {
        const left = (this.avoided.get(name)?.until || 0) - Date.now();
        // A clock that was set back must not make it longer.
        return left <= 0 || left > AVOID_CAP;
      }) || usable[usable.length - 1];
    }

    /** Whether there is nothing to move on to. @param {{name: string}} transport */
    isLast(transport) {
      return transport.name === this.usable.at(-1)?.name;
    }

    /** Why a better one is not in use; empty if there is none. */
    get reason() {
      const { wanted } = this;
      const at = wanted.indexOf(this.best());
      const passed = at < 0 ? wanted : wanted.slice(0, at);
      const avoided = passed.filter(({ supported }) => supported()).pop();
      if (avoided) return this.avoided.get(avoided.name)?.reason || "";
      return passed.length ? "unsupported" : "";
    }

    /** @param {string} name @param {string} reason */
    avoid(name, reason) {
      const times = (this.avoided.get(name)?.times || 0) + 1;
      const until = Date.now() + Math.min(AVOID * 2 ** (times - 1), AVOID_CAP);
      this.avoided.set(name, { reason, until, times });
    }
  }

  return Object.freeze({ Choice, LineSplitter, TRANSPORTS, pollOnce, subscribeQuery });
})();
