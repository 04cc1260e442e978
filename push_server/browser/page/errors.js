/**
 * What goes wrong, and how long to wait before it is tried again.
 *
 * Part of push.js. Needs nothing.
 */
"use strict";

/** Delays between attempts to get a first token or to load the frame, with full jitter. */
const RETRY_BASE = 1000;
const RETRY_CAP = 60000;

/** Why something failed. `stored` of a publication: false, or null where nobody knows. */
class PushError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{status?: number, channels?: string[]}} [more]
   */
  constructor(code, message, { status = 0, channels = [] } = {}) {
    super(message);
    this.name = "PushError";
    this.code = code;
    this.status = status;
    this.channels = channels;
    this.stored = status >= 400 && status < 500 ? false : null;
  }
}

/** @param {number} attempt */
function backoff(attempt) {
  return Math.random() * Math.min(RETRY_CAP, RETRY_BASE * 2 ** Math.min(attempt, 10));
}
