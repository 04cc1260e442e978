/**
 * The scripts of the Drupal module in a page of paper.
 */
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { test } = require("node:test");
const vm = require("node:vm");
const until = require("./until.js");

const SCRIPTS = `${__dirname}/../../cms_module/drupal/js`;

/** Run a script of the module; what it waits for comes at once, and `waits` says for how long. */
function run(name, page) {
  const waits = [];
  const at = (work, delay) => waits.push(delay) && setTimeout(work);
  const Drupal = { behaviors: {}, ...page.Drupal };
  const window = { location: { href: "/node/1" }, ...page };
  const context = { ...page, Drupal, window, setTimeout: at };
  vm.runInNewContext(readFileSync(`${SCRIPTS}/${name}.js`, "utf-8"), context);
  return { Drupal, waits };
}

test("a connection that the site has ended goes on where it was", async () => {
  const made = [];
  const Push = {
    connect: (options) => {
      const push = { options, subscribed: [], listeners: {} };
      made.push(push);
      return {
        subscribe: (channel) => push.subscribed.push(channel),
        on: (event, listener) => { push.listeners[event] = listener; },
        info: () => ({ cursor: "1~7" }),
      };
    },
  };
  const drupalSettings = { pushServer: { server: "http://push.example.test", token: "a.b" } };
  const { Drupal } = run("connection", { Push, drupalSettings });
  Drupal.pushServer.subscribe("news", () => undefined);
  made[0].listeners.revoked("revoked");
  await until(() => made.length === 2);
  assert.deepEqual(made.map(({ options }) => options.since), [undefined, "1~7"]);
  assert.deepEqual(made[1].subscribed, ["news"]);
});

test("comments that came while the site was away are asked for again", async () => {
  const answers = [null, 503, 404];
  let asked = 0;
  let take;
  const { Drupal, waits } = run("comments", {
    fetch: async () => {
      const status = answers[asked];
      asked += 1;
      if (!status) throw new TypeError("away");
      return { status, ok: false };
    },
    once: (_, selector, [section]) => [section],
    Drupal: {
      pushServer: { subscribe: (_, subscriber) => { take = subscriber; }, on: () => undefined },
    },
  });
  const section = { getAttribute: () => "comments:1", querySelectorAll: () => [] };
  Drupal.behaviors.pushServerComments.attach([section]);
  take({ type: "new", comment: "7" });
  await until(() => asked === 3);
  await new Promise((done) => setTimeout(done, 20));
  assert.equal(asked, 3, "what is gone is gone");
  assert.ok(waits[0] < 2000 && waits[1] >= 20000 && waits[2] >= 20000, `${waits}`);
});
