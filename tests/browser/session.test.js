/**
 * When the next token is asked for, by clocks that are wrong, or are set while it holds.
 */
"use strict";

const assert = require("node:assert/strict");
const { afterEach, test } = require("node:test");
const until = require("./until.js");

require("../../push_server/browser/wire.js");
require("../../push_server/browser/session.js");

const HOUR = 3600;
const MINUTE = 60;
const realNow = Date.now;
/** How often the server was asked for its time. */
let asked = 0;

globalThis.fetch = async () => {
  asked += 1;
  return new Response(null, { headers: { date: new Date(realNow()).toUTCString() } });
};

afterEach(() => {
  Date.now = realNow;
  asked = 0;
});

/** Our clock shows so many seconds more than the server's. */
function set(seconds) {
  Date.now = () => realNow() + seconds * 1000;
}

/** A token that the site issued so many seconds ago. */
function token(life, age = 0) {
  const iat = Math.floor(realNow() / 1000) - age;
  const claims = { sub: "alice", sid: "s", iat, exp: iat + life };
  return `${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;
}

/** A session that notes, in seconds, how long it waits before it asks for the next token. */
function begin(pages = []) {
  const session = new globalThis.PushSession({ has: () => true, pages: () => pages });
  const waits = [];
  session.refreshIn = (delay) => waits.push(delay / 1000);
  return { session, waits, bring: (...how) => session.present({}, token(...how)) };
}

test("a wrong clock does not have it ask all the time, nor too late", async () => {
  for (const [life, wrong] of [[HOUR, 5 * MINUTE], [5 * MINUTE, 5 * MINUTE], [HOUR, HOUR],
                               [5 * MINUTE, -5 * MINUTE], [HOUR, -24 * HOUR], [HOUR, 0]]) {
    const { waits, bring } = begin();
    set(wrong);
    await bring(life);
    assert.ok(waits[0] > life / 4 && waits[0] < life, `${life}, ${wrong}: ${waits}`);
  }
});

test("a clock that is set while it holds does not either", async () => {
  const { waits, bring } = begin();
  set(2 * HOUR);
  await bring(HOUR);
  set(0);
  await bring(HOUR + 1);
  set(-9 * MINUTE);
  await bring(HOUR + 2);
  set(HOUR);
  await bring(HOUR + 3);
  assert.ok(waits.every((wait) => wait > HOUR / 2 && wait < HOUR), `${waits}`);
});

test("the server is asked for its time where there is a doubt, and once", async () => {
  const { bring } = begin();
  await bring(HOUR);
  assert.equal(asked, 0);
  // It may as well be a token that a page has had for long.
  await bring(HOUR, 900);
  await bring(HOUR, 3000);
  await bring(HOUR, 2900);
  assert.equal(asked, 1);
});

test("it asks again although it was asked in vain for another reason meanwhile", async () => {
  let answer;
  const { session, waits, bring } = begin([
    { askToken: () => new Promise((done) => { answer = done; }) },
  ]);
  await bring(HOUR);
  const checked = session.check();
  await until(() => answer);
  const refreshed = session.refresh();
  answer({});
  await Promise.all([checked, refreshed]);
  assert.equal(waits.length, 2);
});
