/**
 * Which transports proved not to work on this network, kept from one page to the next: a worker
 * that begins anew with every page would spend seconds of each on finding out.
 *
 * Rules that hold in this file:
 * - Nothing else is ever stored in the browser, and nothing here for longer than an hour.
 * - What is read was written by anybody: it is believed only as far as it can be true.
 *
 * Used by frame.js. Needs nothing.
 */
"use strict";

globalThis.PushMemory = (() => {
  const NAME = "push.avoided";
  const LIMIT = 60 * 60 * 1000;

  /** @returns {[string, Avoided][]} */
  function recall() {
    try {
      const found = JSON.parse(localStorage.getItem(NAME) || "[]");
      return found.filter((/** @type {any} */ [name, { reason, until, times }]) =>
        typeof name === "string" && typeof reason === "string" && times > 0 &&
        until > Date.now() && until < Date.now() + LIMIT);
    } catch {
      return [];
    }
  }

  /** @param {unknown} avoided */
  function remember(avoided) {
    try {
      localStorage.setItem(NAME, JSON.stringify(avoided));
    } catch {
      // The user blocks storage; it is found out anew each time.
    }
  }

  return Object.freeze({ recall, remember });
})();
