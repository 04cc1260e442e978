/**
 * The WebSocket transport, and what it alone can do: change channels and token without a new
 * connection.
 *
 * Rules that hold in this file:
 * - The token goes into the first message, never into the address.
 * - Answers come in order with publications, so they are handed on in the same batches: as
 *   `answered` or `refused`, with what was asked.
 * - A connection that ends before its first message says nothing about who is to blame; that is
 *   proved elsewhere.
 *
 * Used by transports.js. Needs wire.js.
 */
"use strict";

globalThis.PushWebSocket = (() => {
  const { Refusal } = globalThis.PushWire;

  /** Close codes from here on are refusals: this plus the HTTP status. */
  const REFUSED = 4000;

  /** @typedef {{send: (method: string, params: object) => void}} Line */

  /** What has arrived and not been taken. */
  class Inbox {
    constructor() {
      /** @type {any[]} */
      this.messages = [];
      this.ended = false;
      /** @type {Error | null} */
      this.error = null;
      this.wake = () => {};
    }

    /** @param {any} message */
    put(message) {
      this.messages.push(message);
      this.wake();
    }

    /** The first to end it says why. @param {Error | null} [error] */
    end(error = null) {
      if (this.ended) return;
      this.ended = true;
      this.error = error;
      this.wake();
    }

    /** Lists of messages until the end; what came before the end is not lost. */
    async *batches() {
      for (;;) {
        if (this.messages.length) {
          const batch = this.messages;
          this.messages = [];
          yield batch;
        } else if (this.ended) {
          if (this.error) throw this.error;
          return;
        } else {
          await new Promise((done) => {
            this.wake = () => done(undefined);
          });
        }
      }
    }
  }

  /** Where the WebSocket is, beside this script. */
  function address() {
    const url = new URL("subscribe/ws", globalThis.location.href);
    url.protocol = url.protocol.replace("http", "ws");
    return url.href;
  }

  /** Numbers what is asked, and knows what an answer belongs to. */
  class Session {
    /** @param {WebSocket} socket @param {Inbox} inbox */
    constructor(socket, inbox) {
      this.socket = socket;
      this.inbox = inbox;
      this.asked = 0;
      /** @type {Map<number, {method: string, params: any}>} */
      this.pending = new Map();
    }

    /** @param {string} method @param {object} params */
    send(method, params) {
      this.asked += 1;
      this.pending.set(this.asked, { method, params });
      this.socket.send(JSON.stringify({ id: this.asked, method, params }));
    }

    /** @param {string} text */
    take(text) {
      const message = JSON.parse(text);
      // An answer has neither a channel nor a type.
      if (message.channel !== undefined || message.type !== undefined) this.inbox.put(message);
      else this.answer(message);
    }

    /** @param {{id: number, result?: any, error?: any}} answer */
    answer({ id, result, error }) {
      const asked = this.pending.get(id);
      this.pending.delete(id);
      if (!asked) return;
      if (!error) {
        this.inbox.put({ type: "answered", ...asked, result });
      } else if (asked.method === "connect") {
        this.inbox.end(new Refusal(error.status, error.code, error.message));
      } else {
        this.inbox.put({ type: "refused", ...asked, error });
      }
    }
  }

  /**
   * @param {{ask: () => {token: string, channels: string[], since: string | null,
   *   fallback?: string}, signal: AbortSignal, onLine: (line: Line) => void}} wanted
   * @returns {AsyncGenerator<any[]>}
   */
  return async function* webSocket({ ask, signal, onLine }) {
    const inbox = new Inbox();
    const closed = (/** @type {number} */ code) =>
      new Refusal(0, "no_websocket", `The WebSocket was closed (${code}).`);
    const socket = new WebSocket(address());
    const session = new Session(socket, inbox);
    let greeted = false;
    socket.onopen = () => {
      const { token, channels, since, fallback } = ask();
      session.send("connect", { token, channels, ...(since && { since }),
                                ...(fallback && { fallback }) });
    };
    socket.onmessage = ({ data }) => {
      try {
        session.take(data);
      } catch (error) {
        inbox.end(new Refusal(0, "not_ours", String(error)));
      }
    };
    socket.onclose = ({ code, reason }) => {
      const status = code - REFUSED;
      if (status >= 400 && status < 600) inbox.end(new Refusal(status, `http_${status}`, reason));
      else inbox.end(greeted ? null : closed(code));
    };
    const stop = () => inbox.end();
    signal.addEventListener("abort", stop);
    try {
      for await (const batch of inbox.batches()) {
        if (!greeted) {
          greeted = true;
          onLine(session);
        }
        yield batch;
      }
    } finally {
      signal.removeEventListener("abort", stop);
      socket.close();
    }
  };
})();
