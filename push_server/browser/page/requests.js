/**
 * What this page has asked for and not been answered yet.
 *
 * Rules that hold in this file:
 * - It is kept until it is answered: a frame that comes new is told all of it again.
 *
 * Part of push.js. Needs errors.js.
 */
"use strict";

class Requests {
  /** @param {(message: any) => void} post to the frame */
  constructor(post) {
    this.post = post;
    this.made = 0;
    /** @type {Map<number, {done: (result: any) => void, fail: (error: PushError) => void,
     *   message: any}>} */
    this.waiting = new Map();
  }

  /** @param {any} wanted @returns {Promise<any>} */
  make(wanted) {
    return new Promise((done, fail) => {
      this.made += 1;
      const message = { ...wanted, request: this.made };
      this.waiting.set(this.made, { done, fail, message });
      this.post(message);
    });
  }

  repeat() {
    for (const { message } of this.waiting.values()) this.post(message);
  }

  /** @param {any} answer */
  settle({ request, result, error }) {
    const waiting = this.waiting.get(request);
    this.waiting.delete(request);
    if (result) waiting?.done(result);
    else waiting?.fail(new PushError(error.code, error.message, { status: error.status }));
  }

  /** There will be no answer to anything. @param {string} code @param {string} message */
  end(code, message) {
    for (const { fail } of this.waiting.values()) fail(new PushError(code, message));
    this.waiting.clear();
  }
}
