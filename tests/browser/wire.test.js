/**
 * The pure parts of the browser files, without a browser: `node --test tests/browser/`. What they
 * share with Python and PHP stands in tests/vectors/.
 *
 * Node has fetch, streams, Blob, atob and MessageChannel, so the very files that are served are
 * loaded here as they are.
 */
"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");
const zlib = require("node:zlib");

require("../../push_server/browser/wire.js");
require("../../push_server/browser/websocket.js");
require("../../push_server/browser/transports.js");
const { Refusal, backoff, isChannel, isToken, randomId, readToken, workerName } =
  globalThis.PushWire;
const { Choice, LineSplitter, subscribeQuery } = globalThis.PushTransports;

const CHANNELS = require("../vectors/channels.json");
const TOKENS = require("../vectors/tokens.json");
const TRANSPORTS = require("../vectors/transports.json");

const CLAIMS = { v: 1, sub: "42", sid: "žluťoučký", iat: 1000, exp: 4600, sub_ch: ["node:*"],
                 pub_ch: [] };

/** A token as itsdangerous writes it; the signature is not looked at in the browser. */
function token(claims, { packed = false } = {}) {
  const text = Buffer.from(typeof claims === "string" ? claims : JSON.stringify(claims));
  const payload = (packed ? zlib.deflateSync(text) : text).toString("base64url");
  return `${packed ? "." : ""}${payload}.c2lnbmF0dXJl`;
}

test("backoff is full jitter below a ceiling that doubles up to 30 seconds", () => {
  assert.deepEqual([0, 1, 2, 3].map((n) => backoff(n, 0.999999)), [499, 999, 1999, 3999]);
  assert.equal(backoff(50, 0.999999), 29999);
  assert.equal(backoff(50, 0), 0);
  const some = Array.from({ length: 200 }, () => backoff(3));
  assert.ok(some.every((delay) => delay >= 0 && delay < 4000));
  assert.ok(new Set(some).size > 100);
});

test("lines come out the same however the text is cut", () => {
  const text = '{"a":1}\n\n{"b":"\\u2028"}\r\n{"c":3}\n{"unfinished"';
  const whole = new LineSplitter().push(text);
  assert.deepEqual(whole.map((line) => JSON.parse(line)), [{ a: 1 }, { b: "\u2028" }, { c: 3 }]);
  for (let size = 1; size <= text.length; size += 1) {
    const splitter = new LineSplitter();
    const lines = [];
    for (let at = 0; at < text.length; at += size) {
      lines.push(...splitter.push(text.slice(at, at + size)));
    }
    assert.deepEqual(lines, whole, `cut into ${size}`);
    assert.deepEqual(splitter.push("}\n"), ['{"unfinished"}'], "the rest is kept");
  }
});

test("the lines of the stream are those that the server writes", () => {
  const lines = new LineSplitter().push(TRANSPORTS.transports.stream.encoded).map(JSON.parse);
  assert.equal(lines.at(-1).cursor, TRANSPORTS.cursor);
  for (const [index, { data, epoch, ...publication }] of TRANSPORTS.publications.entries()) {
    const { cursor, ...line } = lines[index];
    assert.deepEqual(line, { ...publication, data: JSON.parse(data) });
  }
});

test("a line without an end is refused, not collected for ever", () => {
  const splitter = new LineSplitter();
  const chunk = "x".repeat(1024 * 1024);
  assert.throws(() => {
    for (let count = 0; count < 10; count += 1) splitter.push(chunk);
  }, Refusal);
});

test("the claims of a token are read, compressed or not", async () => {
  assert.deepEqual(await readToken(token(CLAIMS)), CLAIMS);
  assert.deepEqual(await readToken(token(CLAIMS, { packed: true })), CLAIMS);
  for (const { name, token: signed, json } of TOKENS.signing) {
    assert.deepEqual(await readToken(signed), { sid: "", ...JSON.parse(json) }, name);
  }
});

test("what is not a token has no claims", async () => {
  const hopeless = ["", ".", "..", "abc", "a.b", null, undefined, 7, "<html>login</html>",
    token("[]"), token("null"), token("{"), token({ ...CLAIMS, sub: 42 }),
    token({ ...CLAIMS, exp: "soon" }), token({ ...CLAIMS, sid: 7 }),
    `.${token(CLAIMS)}`, `${token(CLAIMS)}\n`, token({ ...CLAIMS, name: "x".repeat(5000) })];
  for (const text of hopeless) assert.equal(await readToken(text), null, String(text));
  assert.equal(isToken('{"error":"not signed in"}'), false);
});

test("channel names are those of the protocol", () => {
  for (const name of CHANNELS.names) assert.ok(isChannel(name), name);
  for (const name of [...CHANNELS.malformed, ...CHANNELS.wildcards, 7, null]) {
    assert.ok(!isChannel(name), String(name));
  }
});

test("pages share a worker only if everything that matters is the same", () => {
  const name = (version, origin, claims) => workerName(version, origin, { ...CLAIMS, ...claims });
  const mine = name("1", "http://www.a.test", {});
  assert.equal(name("1", "http://www.a.test", { exp: 9999, name: "Alice" }), mine);
  const others = [name("2", "http://www.a.test", {}), name("1", "http://www.b.test", {}),
    name("1", "http://www.a.test", { sub: "43" }), name("1", "http://www.a.test", { sid: "s" }),
    name("1", "http://www.a.test", { sub_ch: ["node:*", "x"] }),
    workerName("1", "http://www.a.test", null), workerName("1", "http://www.a.test", null)];
  assert.equal(new Set([mine, ...others]).size, 8);
});

test("the query says no more than there is to say", () => {
  assert.equal(subscribeQuery({ channels: [] }), "");
  assert.equal(
    subscribeQuery({ channels: ["a:1", "b/2"], since: null }),
    "channel=a%3A1&channel=b%2F2",
  );
  assert.equal(
    subscribeQuery({ channels: ["a"], since: "1~x.y", timeout: 0, fallback: "buffered" }),
    "channel=a&since=1%7Ex.y&timeout=0&fallback=buffered",
  );
});

test("a transport that was proved not to work gets another chance, ever later", () => {
  const choice = new Choice();
  choice.allow(["poll", "stream"]);
  assert.deepEqual([choice.best().name, choice.reason], ["stream", ""]);
  const minutes = [10, 20, 40, 60, 60].map((expected) => {
    choice.avoid("stream", "buffered");
    assert.deepEqual([choice.best().name, choice.reason], ["poll", "buffered"]);
    const { until } = choice.avoided.get("stream");
    choice.avoided.get("stream").until = Date.now() + 24 * 60 * 60000;
    assert.equal(choice.best().name, "stream", "the clock was a day fast");
    choice.avoided.get("stream").until = Date.now();
    assert.deepEqual([choice.best().name, choice.reason], ["stream", ""]);
    return Math.round((until - Date.now()) / 60000) - expected;
  });
  assert.deepEqual(minutes, [0, 0, 0, 0, 0]);
});

test("the last transport is used even if it failed, and what is known is not overwritten", () => {
  const choice = new Choice();
  const why = { reason: "buffered", until: Date.now() + 60000, times: 1 };
  choice.recall([["stream", why], ["poll", why]]);
  assert.equal(choice.best().name, "poll");
  choice.recall([["stream", { ...why, until: 0 }]]);
  assert.equal(choice.best().name, "poll");
});

test("the best transport that a browser has and a site wants is used, and why no better one", () => {
  const used = (...wanted) => {
    const choice = new Choice();
    choice.allow(...wanted);
    return [choice.best().name, choice.reason];
  };
  delete globalThis.WebSocket;
  assert.deepEqual(used(), ["stream", "unsupported"]);
  globalThis.WebSocket = class {};
  assert.deepEqual(used(), ["websocket", ""]);
  assert.deepEqual(used(["stream", "poll"]), ["stream", ""]);
  assert.deepEqual(used(["carrier pigeon"]), ["websocket", ""]);
  delete globalThis.WebSocket;
  assert.deepEqual(used(["websocket"]), ["poll", "unsupported"]);
});

test("ids are 128 random bits", () => {
  assert.match(randomId(), /^[0-9a-f]{32}$/);
  assert.notEqual(randomId(), randomId());
});

test("a refusal knows whether it may pass", () => {
  const passing = (status) => new Refusal(status, "x", "x").passing;
  assert.deepEqual([0, 408, 429, 500, 503].map(passing), [true, true, true, true, true]);
  assert.deepEqual([400, 401, 403, 404, 409, 413].map(passing), Array(6).fill(false));
});
