/**
 * The token of one user and session: where it comes from, how long it holds, who may share it.
 *
 * Rules that hold in this file:
 * - Tokens come from pages, which get them from their own site; nothing is stored.
 * - The claims are read for their times and names only. Rights are decided by the server.
 * - Two identities never mix: a page that brings the token of another user or session is let
 *   go, and a token that the server refused is not offered again.
 * - The next token is asked for while the present one still holds, so that a site that is down
 *   for ten minutes harms nobody.
 *
 * Used by connection.js. Needs wire.js.
 */
"use strict";

globalThis.PushSession = (() => {
  const { readToken, within } = globalThis.PushWire;

  /** Most of a token's life passes before the next is asked for; jitter spreads the users. */
  const REFRESH_AT = 0.8;
  const REFRESH_JITTER = 0.1;
  /** While no page can bring a token, this much of the time left passes between two rounds. */
  const RETRY_SHARE = 0.25;
  const RETRY_LEAST = 5000;
  const RETRY_MOST = 60000;
  /** How many pages are asked in one round; each may sleep and take its whole time. */
  const PAGES_ASKED = 5;
  const MAX_TIMER = 2 ** 31 - 1;
  /** Parts of its life: one that seems older, or newer, is worth a look at the server's clock. */
  const OLD = 0.5;
  const NEW = -0.1;
  const CLOCK_TIMEOUT = 3000;
  /** A clock that moved against the one that nobody sets by more than this was set. */
  const DRIFT = 10000;

  /** Our clock against the one that nobody sets; it stops while the computer sleeps. */
  const setting = () => Date.now() - performance.now();

  /**
   * @typedef {{askToken: () => Promise<{token?: string, signedOut?: boolean}>}} Page
   * @typedef {object} Household what the session needs to know of the pages
   * @property {() => Page[]} pages the attached ones, the one last looked at first
   * @property {(page: Page) => boolean} has whether this page is still attached
   * @property {(page: Page, reason: string) => void} release let a page go
   * @property {() => void} renewed a newer token replaced the one in use
   */

  return class PushSession {
    /** @param {Household} household */
    constructor(household) {
      this.household = household;
      /** @type {string | null} */
      this.token = null;
      /** @type {Claims | null} */
      this.claims = null;
      /** The one that the server was shown last. */
      this.presented = "";
      /** @type {string | null} the last token the server did not accept */
      this.refused = null;
      /** @type {Promise<boolean> | null} the round of asking that is under way */
      this.asking = null;
      /** @type {any} */
      this.timer = 0;
      /** Server clock minus ours, in milliseconds: the claims speak of the server's time. */
      this.skew = 0;
      /** How our clock was set when that was found out. */
      this.setting = NaN;
    }

    /** The last page is gone: the next one may be anybody's. */
    forget() {
      clearTimeout(this.timer);
      this.token = null;
      this.claims = null;
    }

    /** The server does not accept this token; a newer one may be in use already. */
    refuse(/** @type {string | null} */ token) {
      if (token) this.refused = token;
      if (this.token === token) this.token = null;
    }

    /** @param {Response} response of the push server, whose Date header tells its time */
    setClock(response) {
      const date = Date.parse(response.headers.get("date") || "");
      if (!date) return;
      this.skew = date - Date.now();
      this.setting = setting();
    }

    /** Whether the server has told its time, and our clock was not set since. */
    get clocked() {
      return Math.abs(setting() - this.setting) < DRIFT;
    }

    /**
     * A WebSocket tells no time. Where a token seems to be old, or not to have begun, our clock may
     * be wrong, and the server is asked.
     * @param {Claims} claims
     */
    async checkClock({ iat, exp }) {
      const age = (this.now() / 1000 - iat) / (exp - iat);
      if (this.clocked || (age > NEW && age < OLD)) return;
      const head = (/** @type {AbortSignal} */ signal) =>
        fetch("push.js", { method: "HEAD", cache: "no-store", credentials: "omit", signal });
      await within(CLOCK_TIMEOUT, undefined, head).then((response) => this.setClock(response),
                                                       () => undefined);
    }

    /** Unix time of the server, in milliseconds. */
    now() {
      return Date.now() + (this.clocked ? this.skew : 0);
    }

    /**
     * A page brings a token. False if it is of no use: refused before, or somebody else's.
     * @param {Page} page
     * @param {string} token
     */
    async present(page, token) {
      const claims = await readToken(token);
      if (claims) await this.checkClock(claims);
      if (!this.household.has(page)) return false;
      const mine = this.claims;
      if (mine && claims && (claims.sub !== mine.sub || claims.sid !== mine.sid)) {
        this.household.release(page, "user_changed");
        return false;
      }
      if (token === this.refused) {
        // It still says whose pages these are.
        this.claims ??= claims;
        return false;
      }
      if (!this.token || !mine || !claims || claims.exp > mine.exp) {
        this.token = token;
        this.claims = claims || mine;
        if (claims) this.planRefresh(claims.iat, claims.exp);
      }
      return true;
    }

    /** @param {number} issued @param {number} expires unix seconds of the server's clock */
    planRefresh(issued, expires) {
      const share = REFRESH_AT + (Math.random() - 0.5) * REFRESH_JITTER;
      const due = (issued + (expires - issued) * share) * 1000 - this.now();
      this.refreshIn(Math.max(due, 1000 * Math.random()));
    }

    /** @param {number} delay */
    refreshIn(delay) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.refresh(), Math.min(delay, MAX_TIMER));
    }

    /** Get the next token while this one still holds. */
    async refresh() {
      const before = this.token;
      const got = await this.ask();
      if (got && this.token !== before) {
        this.household.renewed();
      } else if (this.token && this.claims) {
        const left = (this.claims.exp * 1000 - this.now()) * RETRY_SHARE;
        const delay = Math.min(Math.max(left, RETRY_LEAST), RETRY_MOST);
        this.refreshIn(delay * (0.75 + Math.random() / 2));
      }
    }

    /** Somebody else signed in: let all pages go whose site has another token for them now. */
    async check() {
      // A round that is under way may have been answered before.
      await this.asking;
      let before = 0;
      let good = false;
      do {
        before = this.household.pages().length;
        good = await this.ask();
      } while (!good && this.household.pages().length < before);
    }

    /** The token; if there is none, what the pages bring. Null if they bring none. */
    async obtain() {
      if (!this.token) await this.ask();
      // Also one that another page came with while these were asked in vain.
      return this.token;
    }

    /** Whether a page brought a token that may be used. One round at a time. */
    ask() {
      this.asking ??= this.askPages().finally(() => {
        this.asking = null;
      });
      return this.asking;
    }

    async askPages() {
      for (const page of this.household.pages().slice(0, PAGES_ASKED)) {
        if (!this.household.has(page)) continue;
        const answer = await page.askToken();
        if (!this.household.has(page)) continue;
        if (answer.signedOut) this.household.release(page, "signed_out");
        else if (answer.token && (await this.present(page, answer.token))) return true;
      }
      return false;
    }
  };
})();
