/**
 * The WebSocket transport, and what it alone can do: change channels and token without a new
 * connection, and carry what pages ask for.
 *
 * Rules that hold in this file:
 * - The token goes into the first message, never into the address.
 * - What changes the connection (`send`) is answered in order with the publications, so its
 *   answers are handed on in the same batches: as `answered` or `refused`, with what was asked.
 * - What a page asks for (`ask`) is answered to whoever asked. A server ends a connection that
 *   asks too fast or too much, for all pages; such a thing is not asked here.
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
  /** Every server takes a command of so many bytes. */
  const LARGEST = 8192;
  /** Half of what a server takes in a second, and a tenth of what it takes at once. */
  const PER_SECOND = 100;

  /**
   * @typedef {object} Line the way to ask for something in a connection
   * @property {(method: string, params: object) => void} send asks for a change of it
   * @property {(method: string, params: object) => Promise<any> | null} ask asks for anything
   *   else; null if that has to be asked elsewhere
   */

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

  function open() {
    try {
      return new WebSocket(address());
    } catch (error) {
      // Some browsers throw what a Content-Security-Policy or an extension forbids.
      throw new Refusal(0, "no_websocket", String(error));
    }
  }

  /** Numbers what is asked, and knows what an answer belongs to. */
  class Session {
    /** @param {WebSocket} socket @param {Inbox} inbox */
    constructor(socket, inbox) {
      this.socket = socket;
      this.inbox = inbox;
      this.asked = 0;
      /** @type {Map<number, {method: string, params: any, done?: (result: any) => void,
       *   fail?: (failure: Error) => void}>} */
      this.pending = new Map();
      /** How much may be asked now, and when that was reckoned. */
      this.allowance = PER_SECOND;
      this.reckonedAt = Date.now();
    }

    /** @param {string} method @param {object} params */
    send(method, params) {
      this.socket.send(this.note({ method, params }));
    }

    /**
     * @param {string} method
     * @param {object} params
     * @returns {Promise<any> | null}
     */
    ask(method, params) {
      if (this.socket.readyState !== WebSocket.OPEN || !this.mayAsk()) return null;
      /** @type {any} */
      const command = { method, params };
      const text = this.note(command);
      if (new TextEncoder().encode(text).length > LARGEST) {
        this.pending.delete(this.asked);
        return null;
      }
      this.socket.send(text);
      return new Promise((done, fail) => Object.assign(command, { done, fail }));
    }

    /** Number a command. Returns the message. @param {{method: string, params: any}} command */
    note(command) {
      this.asked += 1;
      this.pending.set(this.asked, command);
      return JSON.stringify({ id: this.asked, ...command });
    }

    mayAsk() {
      const now = Date.now();
      const earned = Math.max(0, now - this.reckonedAt) * PER_SECOND / 1000;
      this.reckonedAt = now;
      this.allowance = Math.min(this.allowance + earned, PER_SECOND);
      if (this.allowance < 1) return false;
      this.allowance -= 1;
      return true;
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
      const { method, params, done, fail } = asked;
      const refusal = error && new Refusal(error.status, error.code, error.message);
      if (refusal && method === "connect") this.inbox.end(refusal);
      else if (refusal && fail) fail(refusal);
      else if (done) done(result);
      else if (error) this.inbox.put({ type: "refused", method, params, error });
      else this.inbox.put({ type: "answered", method, params, result });
    }

    /** Nothing will be answered any more: whoever asked has to ask elsewhere. */
    end() {
      const failure = new Refusal(0, "network", "The WebSocket ended before its answer.");
      for (const { fail } of this.pending.values()) fail?.(failure);
      this.pending.clear();
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
    const socket = open();
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
      session.end();
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
      session.end();
      socket.close();
    }
  };
})();
