// Faye's and CometD's browser builds in jsdom:
// node browser.mjs CLIENT TRANSPORT URL TOKEN CHANNEL MODULES PAGE
// PAGE is the address of the page they run in. Prints lines of JSON, the last one {"done":true}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [client, transport, url, token, channel, modules, page] = process.argv.slice(2);
const require = createRequire(modules + "/");
const { JSDOM } = require("jsdom");
const { EventSource } = require("eventsource");
const shown = token.startsWith("ticket:") ? { ticket: token.slice(7) } : { token };
const say = (value) => console.log(JSON.stringify(value));
const TEXT = "žluťoučký € \u2028 </script>";
const watchdog = setTimeout(() => {
  say({ error: "no end" });
  process.exit(1);
}, 12000);

const dom = new JSDOM("<!doctype html><body></body>", {
  url: page,
  runScripts: "dangerously",
  resources: "usable",
});
dom.window.EventSource = EventSource;

function done(used) {
  clearTimeout(watchdog);
  setTimeout(() => {
    say({ transport: used, done: true });
    process.exit(0);
  }, 300);
}

const got = [];
function received(data, end) {
  say({ data });
  got.push(data);
  if (got.length === 3) end();
}

async function faye() {
  dom.window.eval(readFileSync(require.resolve("faye/client/faye-browser.js"), "utf8"));
  const { Faye } = dom.window;
  const bus = new Faye.Client(url, { timeout: 10, retry: 1 });
  const all = ["websocket", "eventsource", "long-polling", "cross-origin-long-polling",
    "callback-polling"];
  const kept = { eventsource: "long-polling", "cross-origin-long-polling": "callback-polling" };
  for (const name of all) {
    // The first handshake of these goes another way.
    if (name !== transport && name !== kept[transport]
        && !(transport === "websocket" && name.endsWith("-polling"))) bus.disable(name);
  }
  let used = "";
  bus.addExtension({
    outgoing(message, next) {
      if (message.channel === "/meta/handshake") message.ext = { push: shown };
      if (message.channel === "/meta/connect") used = message.connectionType;
      next(message);
    },
    incoming(message, next) {
      if (message.channel === "/meta/handshake")
        say({ handshake: message.successful, error: message.error });
      next(message);
    },
  });
  await bus.subscribe(channel, (data) => received(data, () => {
    bus.disconnect();
    done(used);
  }));
  say({ subscribed: true });
  await bus.publish(channel, { n: 1 });
  say({ published: true });
  await bus.publish(channel, { text: TEXT });
}

async function cometd() {
  global.window = dom.window;
  for (const name of ["XMLHttpRequest", "WebSocket", "document"]) global[name] = dom.window[name];
  const module = await import(pathToFileURL(require.resolve("cometd")));
  const comet = new module.CometD();
  for (const name of ["websocket", "long-polling", "callback-polling"])
    if (name !== transport) comet.unregisterTransport(name);
  comet.configure({ url, logLevel: "warn", useWorkerScheduler: false });
  comet.addListener("/meta/handshake", ({ successful, error }) => say({ handshake: successful, error }));
  comet.handshake({ ext: { push: shown } }, (reply) => {
    if (!reply.successful) return;
    comet.batch(() => {
      comet.subscribe(channel, ({ data }) => received(data, () => {
        const used = comet.getTransport()?.type;
        comet.disconnect(() => done(used));
      }), ({ successful }) => say({ subscribed: successful }));
      comet.publish(channel, { n: 1 }, ({ successful }) => say({ published: successful }));
    });
    comet.publish(channel, { text: TEXT });
  });
}

await { cometd, faye }[client]();
