/**
 * The hidden frame between a page and a worker of paper: what it carries from one to the next.
 */
"use strict";

const assert = require("node:assert/strict");
const { afterEach, beforeEach, test } = require("node:test");
const until = require("./until.js");

const FRAME = require.resolve("../../push_server/browser/frame.js");
const ORIGIN = "http://www.example.test";

/** What the frame listens to, by the name of the event. @type {Record<string, Function>} */
let listeners;
/** The other ends of the ports to its workers, in order, with what they were told. */
let workers;
let toFrame;
let told;

require("../../push_server/browser/wire.js");
require("../../push_server/browser/memory.js");

function ear(port) {
  const end = { port, told: [], of: (type) => end.told.filter((said) => said.type === type) };
  port.onmessage = ({ data }) => end.told.push(data);
  return end;
}

const token = (sub) => {
  const claims = JSON.stringify({ sub, sid: `session of ${sub}`, iat: 1, exp: 2 });
  return `${Buffer.from(claims).toString("base64url")}.c2ln`;
};

beforeEach(() => {
  listeners = {};
  workers = [];
  const listen = (name, work) => { listeners[name] = work; };
  const parent = {};
  globalThis.window = { addEventListener: listen, parent };
  globalThis.document = {
    addEventListener: listen, visibilityState: "visible",
    documentElement: { dataset: { origins: JSON.stringify([ORIGIN]), version: "1" } },
  };
  globalThis.SharedWorker = class {
    constructor() {
      const { port1, port2 } = new MessageChannel();
      this.port = port1;
      workers.push(ear(port2));
    }
  };
  globalThis.setInterval = () => 0;
  delete require.cache[FRAME];
  require(FRAME);
  const { port1, port2 } = new MessageChannel();
  listeners.message({ source: parent, origin: ORIGIN, data: { push: "connect" }, ports: [port2] });
  toFrame = port1;
  told = ear(port1).told;
});

afterEach(() => {
  listeners.pagehide();
  toFrame.close();
  for (const { port } of workers) port.close();
});

/** Begin as this user. Returns the worker's end, attached. */
async function start(sub) {
  toFrame.postMessage({ type: "start", instance: "i", token: token(sub), channels: ["c"] });
  return attached(0);
}

async function attached(number) {
  const worker = await until(() => workers[number]?.of("attach").length && workers[number]);
  worker.port.postMessage({ type: "welcome" });
  return worker;
}

test("another user is asked about until a connection has made sure", async () => {
  const first = await start("alice");
  const neighbour = new BroadcastChannel(`push ${ORIGIN}`);
  const heard = [];
  neighbour.onmessage = ({ data }) => heard.push(data);
  neighbour.postMessage({ who: "bob" });
  await until(() => first.of("check").length);
  // It goes before it has done anything about it.
  first.port.postMessage({ type: "unknown" });
  const second = await attached(1);
  await until(() => second.of("check").length);
  second.port.postMessage({ type: "checked" });
  second.port.postMessage({ type: "unknown" });
  const third = await attached(2);
  third.port.postMessage({ type: "ping" });
  await until(() => third.of("alive").length);
  assert.deepEqual(third.of("check"), []);
  assert.equal(heard.length, 1, "it says once who it is, and answers no answer");
  neighbour.postMessage({ who: "carol", answers: true });
  await until(() => third.of("check").length);
  await new Promise((done) => setTimeout(done, 50));
  assert.equal(heard.length, 1);
  neighbour.close();
});

test("what was not answered goes to the next connection with the same id", async () => {
  const first = await start("alice");
  toFrame.postMessage({ type: "publish", request: 1, id: "mine", channel: "c", data: 1 });
  toFrame.postMessage({ type: "publish", request: 2, channel: "c", data: 2 });
  await until(() => first.of("publish").length === 2);
  const [mine, other] = first.of("publish");
  assert.equal(mine.id, "mine");
  assert.match(other.id, /^[0-9a-f]{32}$/);
  first.port.postMessage({ type: "answer", request: 1, result: {} });
  await until(() => told.flat().some(({ type }) => type === "answer"));
  first.port.postMessage({ type: "unknown" });
  const second = await attached(1);
  await until(() => second.of("publish").length);
  assert.deepEqual(second.of("publish"), [other]);
});
