/**
 * The lease, where several frames want it: one storage, and a storage event for everybody but the
 * one who wrote, as browsers do it. Times are real.
 */
"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");
const until = require("./until.js");

const KEY = "push";
/** Those who hear of writes. @type {Set<{lease: any, hear: (event: object) => void}>} */
const frames = new Set();
const values = new Map();
let listener;

globalThis.window = {
  addEventListener: (_, hear) => { listener = hear; },
  removeEventListener: (_, hear) => {
    for (const frame of frames) if (frame.hear === hear) frames.delete(frame);
  },
};
globalThis.localStorage = {
  getItem: (key) => values.get(key) ?? null,
  setItem(key, value) {
    values.set(key, value);
    tell(key, JSON.parse(value).id);
  },
  removeItem(key) {
    values.delete(key);
    tell(key, null);
  },
};

function tell(key, writer) {
  for (const { lease, hear } of frames) {
    if (lease.id !== writer) setTimeout(() => hear({ key }), 2);
  }
}

require("../../push_server/browser/locks.js");
const { Lease } = globalThis.PushLocks;

/** A frame that notes when it has the lease and when it lost it. */
function stand() {
  const frame = { has: false, losses: 0 };
  frame.lease = new Lease(KEY, {
    held: () => { frame.has = true; },
    lost: () => {
      frame.has = false;
      frame.losses += 1;
    },
  });
  frame.hear = listener;
  frames.add(frame);
  return frame;
}

const holders = (group) => group.filter(({ has }) => has);

test("one of many that begin at once has it, and when it goes another one", async () => {
  const group = Array.from({ length: 10 }, stand);
  for (let left = group.length; left > 1; left -= 1) {
    await until(() => holders(group).length === 1);
    await new Promise((done) => setTimeout(done, 150));
    assert.equal(holders(group).length, 1);
    const [holder] = holders(group);
    holder.lease.release();
    holder.has = false;
  }
  await until(() => holders(group).length === 1);
  assert.equal(group.reduce((sum, { losses }) => sum + losses, 0), 0);
  holders(group)[0].lease.release();
  assert.equal(values.size, 0, "nothing is left behind");
});

test("it can be taken from one that sleeps, which learns of it", async () => {
  const sleeper = stand();
  await until(() => sleeper.has);
  const other = stand();
  other.lease.seize();
  await until(() => other.has && !sleeper.has);
  assert.equal(sleeper.losses, 1);
  other.lease.release();
  await until(() => sleeper.has);
  sleeper.lease.release();
});

test("what was written by one that died, or by another clock, holds nobody for ever", async () => {
  for (const end of [Date.now() - 1, Date.now() + 3600000, "soon"]) {
    values.set(KEY, JSON.stringify({ id: "dead", until: end }));
    const heir = stand();
    await until(() => heir.has);
    heir.lease.release();
  }
  values.set(KEY, "no JSON");
  const heir = stand();
  await until(() => heir.has);
  heir.lease.release();
});
