/**
 * A server of paper, and pages, for tests of the shared connection without a browser.
 *
 * Each test has a connection, a server and pages of its own, told apart by the token, so that
 * tests run side by side. Times are real, and waiting is for conditions.
 *
 * Used by connection.test.js and websocket.test.js.
 */
"use strict";

const until = require("./until.js");

for (const name of ["wire", "websocket", "transports", "session", "pages", "channels", "audience",
                    "arrivals", "dialer", "calls", "connection"]) {
  require(`../../push_server/browser/${name}.js`);
}
const { PushConnection } = globalThis;
// A test that is about WebSockets brings its own; newer versions of Node have one.
delete globalThis.WebSocket;

let users = 0;

/** Token text → the server that has to answer requests with it. */
const servers = new Map();

globalThis.fetch = async (path, { headers, method, body, signal }) => {
  const token = headers.Authorization.replace("Bearer ", "");
  const [route, query = ""] = path.split("?");
  const request = { route, token, method, query: new URLSearchParams(query), signal,
                    body: body && JSON.parse(body), at: Date.now() };
  const server = servers.get(token);
  server.requests.push(request);
  return server[route.split("/").pop()](request);
};

function json(value, status = 200, headers = {}) {
  return new Response(JSON.stringify(value), { status, headers });
}

class Server {
  constructor() {
    this.requests = [];
    this.streams = [];
    this.polls = [];
    this.publications = [];
    users += 1;
    this.user = `u${users}`;
    this.issued = 0;
    this.onStream = () => null;
    this.onPoll = ({ query, signal }) => {
      const nothing = { cursor: "1~p", publications: [], control: [] };
      if (query.get("timeout") === "0") return nothing;
      return new Promise((_, fail) => signal.addEventListener("abort", () => fail(new Error())));
    };
    this.onPublish = () => json({ channel: "c", offset: 1 });
    this.onPresence = () => json({ channel: "c", users: {} });
  }

  token(claims = {}) {
    this.issued += 1;
    const iat = Math.floor(Date.now() / 1000);
    const payload = { sub: this.user, sid: "s", iat, exp: iat + 300 + this.issued, ...claims };
    const text = `${Buffer.from(JSON.stringify(payload)).toString("base64url")}.c2ln`;
    servers.set(text, this);
    return text;
  }

  asked(route) {
    return this.requests.filter((request) => request.route === route);
  }

  stream(request) {
    const refused = this.onStream(request);
    if (refused) return refused;
    const stream = { request };
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      start(controller) {
        stream.say = (...messages) =>
          messages.forEach((message) =>
            controller.enqueue(encoder.encode(`${JSON.stringify(message)}\n`)));
        stream.end = () => controller.close();
        request.signal.addEventListener("abort", () => controller.error(new Error("aborted")));
      },
    });
    stream.hello = (cursor, ...rest) => stream.say(
      { type: "hello", connection: "c", user: this.user, heartbeat: 25, cursor,
        channels: [`user:${this.user}`, ...request.query.getAll("channel")], denied: [] }, ...rest);
    this.streams.push(stream);
    return new Response(body);
  }

  async poll(request) {
    this.polls.push(request);
    return json(await this.onPoll(request));
  }

  async publish(request) {
    this.publications.push(request);
    return this.onPublish(request);
  }

  async presence(request) {
    return this.onPresence(request);
  }
}

class TestPage {
  constructor(connection, server, hosts = false) {
    this.server = server;
    this.messages = [];
    this.answer = () => ({ token: server.token() });
    this.port = {
      postMessage: (message) => {
        this.messages.push(structuredClone(message));
        if (message.type === "token") {
          setTimeout(() => this.say({ type: "token", ...this.answer() }));
        }
        if (message.type === "ping" && !this.dead) this.say({ type: "alive" });
      },
    };
    connection.accept(this.port, hosts);
  }

  say(message) {
    this.port.onmessage({ data: message });
  }

  attach(channels, more = {}) {
    this.instance = `i${Math.random()}`;
    const token = this.server.token();
    this.say({ type: "attach", instance: this.instance, token, channels, ...more });
    return this;
  }

  of(type) {
    return this.messages.filter((message) => message.type === type);
  }

  get state() {
    return this.of("status").pop()?.status.state;
  }

  get got() {
    return this.of("publications").flatMap(({ items }) => items.map(({ data }) => data));
  }
}

const publication = (channel, offset, data = offset, more = {}) =>
  ({ channel, offset, id: `id${offset}`, data, cursor: `1~${offset}`, ...more });

/** A connection with pages, the first stream open and greeted; everything is closed at the end. */
async function scene(work, { channels = ["c"], pages = 1, greet = true, before, ready,
                             onStream = () => null } = {}) {
  before?.();
  const server = Object.assign(new Server(), { onStream });
  const connection = new PushConnection({ sharing: "worker", ready });
  const attached = [];
  const add = (...details) => {
    const page = new TestPage(connection, server).attach(...details);
    attached.push(page);
    return page;
  };
  for (let count = 0; count < pages; count += 1) add(channels);
  try {
    if (greet) {
      (await until(() => server.streams[0])).hello("1~0");
      await until(() => attached.every((page) => page.state === "live"));
    }
    await work({ server, connection, pages: attached, page: attached[0], add });
  } finally {
    for (const page of attached) page.say({ type: "detach" });
    await until(() => !connection.dialer.running, "the loop ends with its last page");
  }
}

module.exports = { Server, TestPage, json, publication, scene, servers, until };
