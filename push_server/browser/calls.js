/**
 * What pages ask the server for, besides news: to publish, and who is there.
 *
 * Rules that hold in this file:
 * - It is asked on the line of the connection, where that has one, else by a request beside it.
 *   What was asked on a line that broke before the answer is asked again by a request.
 * - A publication keeps its id over all attempts: where only the answer was lost, the repetition
 *   publishes nothing twice.
 *
 * Used by connection.js. Needs wire.js.
 */
"use strict";

globalThis.PushCalls = (() => {
  const { Refusal, backoff, randomId, request, within } = globalThis.PushWire;

  const ATTEMPTS = 6;
  const TIMEOUT = 10000;

  const sleep = (/** @type {number} */ ms) => new Promise((done) => setTimeout(done, ms));

  /**
   * @typedef {object} House
   * @property {{token: string | null, presented: string,
   *   obtain: () => Promise<string | null>, refuse: (token: string) => void}} session
   * @property {() => {ask: (method: string, params: object) => Promise<any> | null} | null} line
   *   the way to ask in the connection there is, if it has one
   * @property {(channel: string) => boolean} hears whether the connection has this channel
   */

  return class PushCalls {
    /** @param {House} house */
    constructor(house) {
      this.house = house;
    }

    /** @param {{id?: string, channel: string, data: any, exclude?: string}} wanted */
    publish({ id = randomId(), channel, data, exclude }) {
      return this.call("publish", { channel, data, id, ...(exclude && { exclude }) }, true);
    }

    /**
     * A connection may only ask about its own channels.
     * @param {{channel: string, limit?: number}} wanted
     */
    presence({ channel, limit }) {
      const params = { channel, ...(limit !== undefined && { limit }) };
      return this.call("presence", params, this.house.hears(channel));
    }

    /**
     * @param {string} method
     * @param {object} params
     * @param {boolean} onLine whether the line will do
     */
    async call(method, params, onLine) {
      const answer = onLine && this.house.line()?.ask(method, params);
      if (answer) {
        const inTime = (/** @type {AbortSignal} */ signal) => Promise.race([answer, end(signal)]);
        try {
          return await within(TIMEOUT, undefined, inTime);
        } catch (error) {
          const { passing, status } = /** @type {InstanceType<typeof Refusal>} */ (error);
          // A page may have brought a token since that grants more than the connection's.
          const { token, presented } = this.house.session;
          if (!passing && (status !== 403 || token === presented)) throw error;
        }
      }
      return this.request(method, JSON.stringify(params));
    }

    /** @param {string} path @param {string} body */
    async request(path, body) {
      const { session } = this.house;
      let failure = new Refusal(401, "signed_out", "There is no token to ask with.");
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        const token = await session.obtain();
        if (!token) throw failure;
        try {
          const send = async (/** @type {AbortSignal} */ signal) =>
            (await request(path, { token, signal, body })).json();
          return await within(TIMEOUT, undefined, send);
        } catch (error) {
          failure = /** @type {any} */ (error);
        }
        const expired = failure.status === 401 && attempt === 0;
        if (expired) session.refuse(token);
        if (!expired && !failure.passing) break;
        const delay = Math.max(backoff(attempt), failure.retryAfter);
        if (!expired) await sleep(Math.min(delay, TIMEOUT));
      }
      throw failure;
    }
  };

  /** Fails with the signal. @param {AbortSignal} signal @returns {Promise<never>} */
  function end(signal) {
    return new Promise((_, fail) => {
      signal.addEventListener("abort", () => fail(new Refusal(0, "network", "No answer in time.")));
    });
  }
})();
