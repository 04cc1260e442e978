/**
 * The channels of a connection: what was asked for, what is on, and what is not to be had.
 *
 * Rules that hold in this file:
 * - Only names are here: no pages, no requests, no decision about when to ask.
 * - The personal channel is on without being asked for, and counts for no limit.
 *
 * Used by connection.js. Needs nothing.
 */
"use strict";

globalThis.PushChannels = (() => {
  /** The server's limit for one connection, besides the personal channel. */
  const MAX_CHANNELS = 64;

  return class PushChannels {
    constructor() {
      /** In the request that is under way, or that was last. @type {Set<string>} */
      this.asked = new Set();
      /** On now, and on before the last hello. @type {Set<string>} */
      this.on = new Set();
      this.before = new Set();
      /** Not granted. @type {Set<string>} */
      this.denied = new Set();
      /** They made the server refuse a whole request. @type {Set<string>} */
      this.hopeless = new Set();
      this.limit = MAX_CHANNELS;
      /** The name of the channel that comes by itself. */
      this.personal = "";
    }

    /**
     * What to ask for so that all these are on, and what goes beyond the limit.
     * @param {Iterable<string>} wanted
     */
    choose(wanted) {
      const names = [...new Set(wanted)]
        .filter((name) => !this.hopeless.has(name) && name !== this.personal).sort();
      return { names, beyond: names.splice(this.limit) };
    }

    /** Whether a request that asks for nothing more would bring it. @param {string} name */
    covers(name) {
      return this.asked.has(name) || name === this.personal;
    }

    /** Whether there is anything to be gained by asking. @param {string} name */
    isSettled(name) {
      return this.covers(name) || [this.on, this.denied, this.hopeless].some((s) => s.has(name));
    }

    /** @param {string[]} names that are wanted now */
    difference(names) {
      return {
        more: names.filter((name) => !this.asked.has(name)),
        fewer: [...this.asked].filter((name) => !names.includes(name)),
      };
    }

    /**
     * From now on the others are not on: whoever wants one of them has to ask.
     * @param {string[]} names
     */
    ask(names) {
      this.asked = new Set(names);
      for (const name of this.on) if (!this.covers(name)) this.on.delete(name);
    }

    /** The server's first word. @param {string[]} on @param {string[]} denied */
    greet(on, denied) {
      this.before = this.on;
      this.on = new Set(on);
      this.denied = new Set([...denied, ...this.hopeless]);
    }

    /** @param {string[]} names */
    add(names) {
      for (const name of names) {
        this.on.add(name);
        this.denied.delete(name);
      }
    }

    /** @param {string[]} names */
    drop(names) {
      for (const name of names) this.on.delete(name);
    }

    /** @param {string[]} names */
    deny(names) {
      this.drop(names);
      for (const name of names) this.denied.add(name);
    }

    /** Another token: it may grant what the one before did not. */
    reconsider() {
      this.asked = new Set([...this.on].filter((name) => name !== this.personal));
    }

    /**
     * The server refuses a request of which no channel is granted, and with it the personal one,
     * which is. True if there is less to ask for.
     */
    giveUp() {
      const before = this.hopeless.size;
      for (const name of this.asked) this.hopeless.add(name);
      return this.hopeless.size > before;
    }

    /** The server takes fewer than we thought. */
    halve() {
      this.limit = Math.ceil(this.asked.size / 2);
    }
  };
})();
