/**
 * push.js in a page of paper, with a frame that only listens.
 */
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { test } = require("node:test");
const vm = require("node:vm");
const until = require("./until.js");

const SCRIPT = readFileSync(`${__dirname}/../../push_server/browser/push.js`, "utf-8");

/** A page that has been loaded. `load()` loads a document into its frame, `sent` is what it was
 * told since. */
function stage() {
  const frame = {
    style: {}, setAttribute() {}, remove() {},
    addEventListener: (_, work) => { frame.load = work; },
    contentWindow: { postMessage: (message, origin, [port]) => { frame.port = port; } },
  };
  const page = {
    HTMLElement: class {}, customElements: { get: () => true }, MessageChannel, URL,
    crypto, queueMicrotask, setTimeout, clearTimeout, Response, DOMException, structuredClone,
    location: new URL("http://www.example.test/"),
    document: {
      readyState: "complete", body: { append() {} },
      createElement: () => frame, querySelectorAll: () => [],
    },
  };
  page.window = page;
  vm.runInNewContext(SCRIPT, page);
  const stage = { page, frame, sent: [] };
  stage.load = () => {
    stage.sent = [];
    frame.load();
    frame.port.onmessage = ({ data }) => stage.sent.push(data);
    frame.port.postMessage([{ type: "ready", version: "1", documentDomain: "" }]);
  };
  stage.publications = () => stage.sent.filter(({ type }) => type === "publish");
  return stage;
}

/** A page on the stage, its frame waiting to be loaded. */
async function connected() {
  const scene = stage();
  const push = scene.page.Push.connect({ server: "http://push.example.test", token: () => "a.b" });
  await until(() => scene.frame.load);
  return { ...scene, push, scene };
}

test("a frame that is loaded again is told the same publications, with their ids", async () => {
  const { push, scene } = await connected();
  scene.load();
  await until(() => scene.sent.length);
  push.publish("c", 1).catch(() => undefined);
  const [before] = await until(() => scene.publications().length && scene.publications());
  assert.match(before.id, /^[0-9a-f]{32}$/);
  const { port } = scene.frame;
  scene.load();
  port.close();
  const [after] = await until(() => scene.publications().length && scene.publications());
  assert.deepEqual(after, before);
  push.close();
  scene.frame.port.close();
});

test("what cannot be handed to a frame holds nothing up, and is taken as it is now", async () => {
  const { push, scene } = await connected();
  const watched = new Proxy({ text: "then", react() {} }, {});
  push.publish("c", watched).catch(() => undefined);
  watched.text = "later";
  push.publish("c", "next").catch(() => undefined);
  assert.throws(() => push.publish("c", () => undefined), { name: "TypeError" });
  scene.load();
  await until(() => scene.publications().length === 2);
  assert.deepEqual(scene.publications().map(({ data }) => data), [{ text: "then" }, "next"]);
  push.close();
  scene.frame.port.close();
});

test("a page that the browser has made in advance waits until somebody opens it", async () => {
  const { page, frame } = stage();
  const { document } = page;
  let asked = 0;
  let open;
  document.prerendering = true;
  document.addEventListener = (name, work) => {
    assert.equal(name, "prerenderingchange");
    open = work;
  };
  const token = () => {
    asked += 1;
    return "a.b";
  };
  const push = page.Push.connect({ server: "http://push.example.test", token });
  try {
    await new Promise((done) => setTimeout(done, 50));
    assert.equal(asked, 0);
    document.prerendering = false;
    open();
    await until(() => frame.load);
    assert.equal(asked, 1);
  } finally {
    push.close();
  }
});

test("a frame that nothing comes of is given more time with each attempt", async () => {
  const { page } = stage();
  const waits = [];
  page.setTimeout = (work, time) => waits.push({ work, time });
  const push = page.Push.connect({ server: "http://push.example.test", token: () => "a.b" });
  const given = [];
  for (let attempt = 0; attempt < 4; attempt += 1) {
    const { work, time } = await until(() => waits.pop());
    given.push(time);
    work();
    waits.pop().work();
  }
  assert.deepEqual(given, [10000, 20000, 30000, 30000]);
  assert.equal(push.info().state, "retrying");
  page.setTimeout = setTimeout;
  push.close();
});

test("a token function that throws whatever it likes is asked again", async () => {
  const { page, frame } = stage();
  const thrown = [undefined, new DOMException("late", "TimeoutError")];
  page.Math = Object.create(Math, { random: { value: () => 0 } });
  const token = () => {
    if (thrown.length) throw thrown.shift();
    return "a.b";
  };
  const push = page.Push.connect({ server: "http://push.example.test", token });
  const errors = [];
  push.on("error", ({ code }) => errors.push(code));
  try {
    await until(() => frame.load);
    // Nobody listened yet when the first was thrown.
    assert.deepEqual(errors, ["token_unavailable"]);
  } finally {
    push.close();
  }
});
