/**
 * What a site can hear of besides publications, and who listens.
 *
 * Rules that hold in this file:
 * - An error of the site's own code is the site's: it is reported, and harms nobody else.
 *
 * Part of push.js. Needs nothing.
 */
"use strict";

const EVENTS = ["status", "subscribed", "reset", "recovered", "revoked", "error", "join",
                "leave"];

/** Call what the site gave us. @param {Function} callback @param {...any} details */
function callSite(callback, ...details) {
  try {
    callback(...details);
  } catch (error) {
    // As if nobody had called it.
    setTimeout(() => {
      throw error;
    });
  }
}

class Listeners {
  constructor() {
    /** @type {Map<string, Set<(...details: any[]) => void>>} */
    this.of = new Map(EVENTS.map((name) => [name, new Set()]));
  }

  /**
   * @param {string} name
   * @param {(...details: any[]) => void} listener
   * @returns {() => void} stops it
   */
  add(name, listener) {
    const listeners = this.of.get(name);
    if (!listeners) throw new TypeError(`No such event: ${name}. There are ${EVENTS.join(", ")}`);
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
    };
  }

  /** @param {string} name @param {...any} details */
  tell(name, ...details) {
    for (const listener of [...(this.of.get(name) || [])]) callSite(listener, ...details);
  }
}
