// One scenario for every Bayeux client of Node: node scenario.mjs CLIENT TRANSPORT URL TOKEN CHANNEL
// Prints what happened as lines of JSON, the last one {"done":true}; the test judges them.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [client, transport, url, token, channel, modules] = process.argv.slice(2);
const require = createRequire(modules + "/");
const say = (value) => console.log(JSON.stringify(value));
const TEXT = "žluťoučký € \u2028 </script>";
const watchdog = setTimeout(() => {
  say({ error: "no end" });
  process.exit(1);
}, 12000);

async function cometd() {
  const { adapt } = await import(pathToFileURL(require.resolve("cometd-nodejs-client")));
  adapt();
  const module = await import(pathToFileURL(require.resolve("cometd")));
  const comet = new module.CometD();
  for (const name of ["websocket", "long-polling", "callback-polling"]) {
    if (name !== transport) comet.unregisterTransport(name);
  }
  if (process.env.ACK) {
    const { AckExtension } = await import(pathToFileURL(require.resolve("cometd/AckExtension.js")));
    comet.registerExtension("ack", new AckExtension());
  }
  comet.configure({ url, logLevel: "warn", useWorkerScheduler: false });
  comet.addListener("/meta/handshake", (reply) => {
    say({ handshake: reply.successful, error: reply.error, user: reply.ext?.push?.user });
    if (!reply.successful) finish();
  });
  comet.addListener("/service/push", ({ data }) => say({ control: data }));
  const got = [];
  function finish() {
    comet.disconnect(() => {
      clearTimeout(watchdog);
      say({ transport: comet.getTransport()?.type, done: true });
      setTimeout(() => process.exit(0), 50);
    });
  }
  comet.handshake({ ext: { push: { token } } }, (reply) => {
    if (!reply.successful) return;
    comet.batch(() => {
      comet.subscribe(channel, ({ data }) => {
        say({ data });
        got.push(data);
        if (got.length === 3) finish();
      }, (answer) => say({ subscribed: answer.successful, error: answer.error }));
      comet.publish(channel, { n: 1 }, (answer) => say({ published: answer.successful }));
    });
    comet.publish(channel, { text: TEXT });
  });
}

async function faye() {
  const Faye = require("faye");
  const types = ["websocket", "long-polling", "eventsource", "callback-polling", "in-process"];
  const bus = new Faye.Client(url, { timeout: 10, retry: 1 });
  for (const type of types) if (type !== transport && type !== "long-polling") bus.disable(type);
  let used = "";
  bus.addExtension({
    outgoing(message, next) {
      if (message.channel === "/meta/handshake") message.ext = { push: { token } };
      if (message.channel === "/meta/connect") used = message.connectionType;
      next(message);
    },
    incoming(message, next) {
      if (message.channel === "/meta/handshake")
        say({ handshake: message.successful, error: message.error, user: message.ext?.push?.user });
      next(message);
    },
  });
  const got = [];
  await bus.subscribe(channel, (data) => {
    say({ data });
    got.push(data);
    if (got.length === 3) {
      bus.disconnect();
      clearTimeout(watchdog);
      setTimeout(() => {
        say({ transport: used, done: true });
        process.exit(0);
      }, 300);
    }
  });
  say({ subscribed: true });
  await bus.publish(channel, { n: 1 });
  say({ published: true });
  await bus.publish(channel, { text: TEXT });
}

await { cometd, faye }[client]();
