/**
 * Waiting in the unit tests: for a condition, and with a deadline that only a failure takes.
 *
 * Used by the unit tests, and by paper.js for those that have a server.
 */
"use strict";

const assert = require("node:assert/strict");

const PATIENCE = 15000;

/** The first true value of a condition. */
module.exports = async function until(condition, what) {
  for (const begun = Date.now(); ; ) {
    const value = condition();
    if (value) return value;
    assert.ok(Date.now() - begun < PATIENCE, `still not so: ${what || condition}`);
    await new Promise((done) => setTimeout(done, 5));
  }
};
