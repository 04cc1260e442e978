/**
 * Where this page gets its tokens: from its own site.
 *
 * Rules that hold in this file:
 * - Nobody signed in is an answer; a site in trouble is not, and is asked again later.
 * - What does not look like a token (an error page, a login form) is sent nowhere.
 *
 * Part of push.js. Needs errors.js.
 */
"use strict";

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
