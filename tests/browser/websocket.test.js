/**
 * The shared connection over a WebSocket of paper: what is changed in it without a new one, and
 * when it is left for another transport.
 *
 * The tests run one after the other, because a WebSocket does not say whose it is before its
 * first message.
 */
"use strict";

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { json, publication, scene, servers, until } = require("./paper.js");

globalThis.location = { href: "http://push.example.test:6660/connection.js?v=1" };

/** Those that were made in this test, in order. @type {PaperSocket[]} */
let sockets = [];
/** What becomes of a new one. */
let onNew = (socket) => socket.onopen();

class PaperSocket {
  static OPEN = 1;

  constructor(url) {
    this.url = url;
    this.readyState = PaperSocket.OPEN;
    this.commands = [];
    sockets.push(this);
    setTimeout(() => onNew(this));
  }

  send(text) {
    this.commands.push(JSON.parse(text));
  }

  close(code = 1000) {
    if (this.closed) return;
    this.closed = true;
    this.readyState = 3;
    setTimeout(() => this.onclose({ code, reason: "" }));
  }

  say(...messages) {
    for (const message of messages) this.onmessage({ data: JSON.stringify(message) });
  }

  /** What was asked under this name. */
  asked(method) {
    return this.commands.filter((command) => command.method === method);
  }

  hello(...rest) {
    const [{ params }] = this.asked("connect");
    this.say({ type: "hello", connection: "c", user: "u", heartbeat: 25, cursor: "1~0",
               channels: ["user:u", ...params.channels], denied: [] }, ...rest);
  }

  async answer(method, result, error) {
    const { id } = await until(() => this.asked(method).at(-1), method);
    this.say(error ? { id, error } : { id, result });
  }
}

/** Pages on one connection, the first WebSocket open and greeted. */
function story(work, { pages = 1, greet = true, open = (socket) => socket.onopen(),
                       socket = PaperSocket } = {}) {
  return scene(async (parts) => {
    if (greet) {
      (await until(() => sockets[0]?.commands.length && sockets[0])).hello();
      await until(() => parts.pages.every(({ state }) => state === "live"));
    }
    await work({ ...parts, socket: sockets[0] });
  }, { pages, greet: false, before: () => {
    globalThis.WebSocket = socket;
    sockets = [];
    onNew = open;
  } }).finally(() => { delete globalThis.WebSocket; });
}

const shut = (socket) => socket.close(1006);

describe("a WebSocket", () => {
  it("shows the token in its first message and nowhere else", () =>
    story(async ({ server, page, socket }) => {
      assert.equal(socket.url, "ws://push.example.test:6660/subscribe/ws");
      const [{ id, params }] = socket.asked("connect");
      assert.deepEqual([id, params.channels, "since" in params], [1, ["c"], false]);
      assert.match(params.token, /^[\w-]+\.c2ln$/);
      socket.say(publication("c", 1), publication("c", 2), publication("c", 2));
      await until(() => page.got.length === 2);
      assert.deepEqual(page.of("status").pop().status.transport, "websocket");
      assert.equal(server.requests.length, 0, "there was no other request");
    }));

  it("comes back with the cursor when it ends", () =>
    story(async ({ page, socket }) => {
      socket.say(publication("c", 3));
      socket.close(1012);
      const next = await until(() => sockets[1]?.commands.length && sockets[1]);
      assert.equal(next.asked("connect")[0].params.since, "1~3");
      next.hello({ type: "recovered", channels: ["c"] }, publication("c", 4));
      await until(() => page.got.length === 2);
    }));

  it("takes up and gives up channels without a new connection", () =>
    story(async ({ pages: [one, other], socket }) => {
      one.say({ type: "channels", channels: ["c", "more", "not mine"] });
      one.say({ type: "channels", channels: ["c", "more", "mine.not"] });
      const [{ params }] = await until(() => socket.asked("subscribe").length &&
        socket.asked("subscribe"));
      assert.deepEqual(params.channels, ["mine.not", "more"]);
      await socket.answer("subscribe", { channels: ["more"], denied: ["mine.not"],
                                         cursor: "1~5" });
      await until(() => one.of("denied").length);
      assert.deepEqual(one.of("subscribed").at(-1).channels, ["more"]);
      assert.deepEqual(one.of("denied")[0].channels, ["mine.not"]);
      socket.say(publication("more", 1, "of more"), publication("c", 1, "of c"));
      await until(() => one.got.length === 2);
      assert.deepEqual(other.got, ["of c"]);
      one.say({ type: "channels", channels: ["c"] });
      const left = await until(() => socket.asked("unsubscribe")[0]);
      assert.deepEqual(left.params.channels, ["more"]);
      await socket.answer("unsubscribe", { channels: ["more"], cursor: "1~6" });
      assert.equal(sockets.length, 1);
    }, { pages: 2 }));

  it("asks again for a channel that is wanted while it is being given up", () =>
    story(async ({ page, socket, connection }) => {
      page.say({ type: "channels", channels: [] });
      connection.change();
      await until(() => socket.asked("unsubscribe").length);
      page.say({ type: "channels", channels: ["c"] });
      await socket.answer("unsubscribe", { channels: ["c"], cursor: "1~6" });
      const [{ params }] = await until(() => socket.asked("subscribe").length &&
        socket.asked("subscribe"));
      assert.deepEqual(params.channels, ["c"]);
      assert.equal(page.of("subscribed").length, 1);
      await socket.answer("subscribe", { channels: ["c"], cursor: "1~7" });
      await until(() => page.of("subscribed").length === 2);
    }));

  it("tells a page what is refused as a whole", () =>
    story(async ({ page, socket }) => {
      page.say({ type: "channels", channels: ["c", "secret"] });
      const error = { code: "channel_denied", message: "no", status: 403 };
      await socket.answer("subscribe", null, error);
      await until(() => page.of("denied").length);
      assert.deepEqual(page.of("denied")[0].channels, ["secret"]);
      assert.equal(sockets.length, 1);
    }));

  it("renews the token, and asks again for what the one before did not grant", () =>
    story(async ({ connection, page, socket }) => {
      page.say({ type: "channels", channels: ["c", "later"] });
      await socket.answer("subscribe", { channels: [], denied: ["later"], cursor: "1~1" });
      await until(() => page.of("denied").length);
      await connection.session.refresh();
      const [renewal] = socket.asked("renew");
      assert.equal(renewal.params.token, connection.session.token);
      await socket.answer("renew", { expires: 1, channels: ["user:u"], denied: ["c"],
                                     cursor: "1~2" });
      await until(() => socket.asked("subscribe").length === 2);
      assert.deepEqual(socket.asked("subscribe")[1].params.channels, ["c", "later"]);
      await socket.answer("subscribe", { channels: ["later"], denied: ["c"], cursor: "1~3" });
      await until(() => page.of("subscribed").length === 2);
      assert.deepEqual(page.of("denied").map(({ channels }) => channels), [["later"], ["c"]]);
      assert.equal(connection.session.presented, renewal.params.token);
      assert.equal(sockets.length, 1);
    }));

  it("is made anew where the new token is refused", () =>
    story(async ({ connection, socket }) => {
      await connection.session.refresh();
      await socket.answer("renew", null, { code: "other_session", message: "no", status: 403 });
      const next = await until(() => sockets[1]?.commands.length && sockets[1]);
      assert.equal(next.asked("connect")[0].params.token, connection.session.token);
    }));

  it("asks for another token when the server takes none", () =>
    story(async ({ page }) => {
      const first = await until(() => sockets[0]?.commands[0]);
      await sockets[0].answer("connect", null, { code: "token_invalid", message: "no",
                                                 status: 401 });
      sockets[0].close(4401);
      const second = await until(() => sockets[1]?.commands[0]);
      assert.notEqual(second.params.token, first.params.token);
      assert.equal(page.of("token").length, 1);
      assert.ok(page.of("status").some(({ status }) => status.error?.code === "token_invalid"));
    }, { greet: false }));

  it("is left when it comes to nothing twice while a poll is answered", () =>
    story(async ({ server, page }) => {
      (await until(() => server.streams[0])).hello("1~0");
      await until(() => page.state === "live");
      assert.equal(sockets.length, 2);
      const { transport, reason } = page.of("status").pop().status;
      assert.deepEqual([transport, reason], ["stream", "blocked"]);
      assert.equal(server.streams[0].request.query.get("fallback"), "blocked");
      const [[name, why]] = page.of("avoided")[0].avoided;
      assert.deepEqual([name, why.reason], ["websocket", "blocked"]);
    }, { greet: false, open: shut }));

  it("is left when three in a row are cut while a poll is answered", () =>
    story(async ({ server, page, socket }) => {
      socket.close(1006);
      for (const number of [1, 2]) {
        const next = await until(() => sockets[number]?.commands.length && sockets[number]);
        next.hello();
        await until(() => page.state === "live");
        next.close(1006);
      }
      (await until(() => server.streams[0])).hello("1~0");
      await until(() => page.of("status").at(-1).status.transport === "stream");
      assert.equal(page.of("status").at(-1).status.reason, "cut");
      assert.equal(sockets.length, 3);
    }));

  it("stays when the server sends it away, however often", () =>
    story(async ({ server, page }) => {
      for (const number of [0, 1, 2]) {
        const next = await until(() => sockets[number]?.commands.length && sockets[number]);
        if (number) next.hello();
        await until(() => page.state === "live");
        next.say({ type: "reconnect", delay: 0, reason: "asked" });
        next.close(4003);
      }
      (await until(() => sockets[3]?.commands.length && sockets[3])).hello();
      await until(() => page.state === "live");
      assert.equal(server.requests.length, 0);
    }));

  it("is left where the browser throws instead of making one", () =>
    story(async ({ server, page }) => {
      (await until(() => server.streams[0])).hello("1~0");
      await until(() => page.state === "live");
      assert.equal(page.of("status").at(-1).status.reason, "blocked");
    }, { greet: false, socket: class { constructor() { throw new DOMException("no"); } } }));

  it("stays as long as it works, whatever was found out elsewhere", () =>
    story(async ({ server, connection, socket, add }) => {
      const why = { reason: "blocked", until: Date.now() + 600000, times: 1 };
      const other = add(["c"], { avoided: [["websocket", why]] });
      await until(() => other.state === "live");
      const { takes } = connection.dialer;
      socket.say({ type: "ping", cursor: "1~0" });
      await until(() => connection.dialer.takes > takes);
      assert.ok(!socket.closed);
      assert.equal(server.streams.length, 0);
    }));

  it("stays when it comes to nothing once now and once later", () =>
    story(async ({ page, socket }) => {
      const failOnce = (another) => {
        onNew = () => {
          onNew = (next) => next.onopen();
          shut(another());
        };
      };
      for (const number of [0, 2]) {
        failOnce(() => sockets[number + 1]);
        (number ? sockets[number] : socket).close(1006);
        (await until(() => sockets[number + 2]?.commands.length && sockets[number + 2])).hello();
        await until(() => page.state === "live");
      }
      assert.deepEqual(page.of("avoided"), []);
    }));

  it("asks for another token when it is blocked and the poll is refused", () =>
    story(async ({ server, page }) => {
      server.poll = async ({ token }) => (token === first
        ? json({ error: { code: "token_invalid", message: "no" } }, 401)
        : json({ cursor: "1~p", publications: [], control: [] }));
      const first = [...servers].filter(([, owner]) => owner === server)[0][0];
      (await until(() => server.streams[0])).hello("1~0");
      await until(() => page.state === "live");
      assert.equal(page.of("token").length, 1);
    }, { greet: false, open: shut }));

  it("stays when the server is away altogether", () =>
    story(async ({ server, page }) => {
      server.onPoll = () => { throw new TypeError("unreachable"); };
      await until(() => sockets.length >= 3);
      assert.equal(page.of("status").pop().status.error.code, "network");
      // It comes back, and answers polls a moment before it takes WebSockets.
      server.onPoll = () => {
        onNew = (socket) => socket.onopen();
        return { cursor: "1~p", publications: [], control: [] };
      };
      const last = await until(() => sockets.at(-1).commands.length && sockets.at(-1));
      last.hello();
      await until(() => page.state === "live");
      assert.equal(page.of("status").pop().status.transport, "websocket");
      assert.deepEqual(page.of("avoided"), []);
    }, { greet: false, open: shut }));

  it("believes a close code when the words that go with it were lost", () =>
    story(async ({ server, page }) => {
      await until(() => sockets[0]?.commands.length);
      sockets[0].close(4503);
      const next = await until(() => sockets[1]?.commands.length && sockets[1]);
      assert.equal(page.of("status").at(-1).status.error.status, 503);
      assert.equal(server.polls.length, 0, "there is nothing to be proved");
      next.hello();
    }, { greet: false }));

  it("waits as long as the server asks when that is busy", () =>
    story(async ({ server }) => {
      server.poll = async () => json({ error: { code: "full", message: "full" } }, 503,
                                     { "Retry-After": "1" });
      await until(() => sockets.length);
      const begun = Date.now();
      await until(() => sockets.length >= 2);
      assert.ok(Date.now() - begun >= 990, `${Date.now() - begun} ms`);
    }, { greet: false, open: shut }));

  it("ends a connection that brings what is no JSON", () =>
    story(async ({ page, socket }) => {
      socket.onmessage({ data: "<html>" });
      await until(() => sockets[1]);
      assert.ok(socket.closed);
      assert.equal(page.of("status").pop().status.error.code, "not_ours");
    }));

  it("carries what pages publish, and tells each its own answer", () =>
    story(async ({ server, pages: [one, other], socket }) => {
      one.say({ type: "publish", request: 1, channel: "c", data: 1, exclude: one.instance });
      one.say({ type: "publish", request: 2, channel: "c", data: 2 });
      other.say({ type: "publish", request: 1, channel: "c", data: 3 });
      await until(() => socket.asked("publish").length === 2);
      const [first, second] = socket.asked("publish");
      assert.deepEqual([first.params.data, first.params.exclude], [1, one.instance]);
      assert.deepEqual([second.params.data, "exclude" in second.params], [3, false]);
      socket.say({ id: second.id, result: { offset: 7 } });
      await until(() => other.of("answer").length);
      assert.deepEqual(other.of("answer"), [{ type: "answer", request: 1, result: { offset: 7 } }]);
      assert.deepEqual(one.of("answer"), [], "the next one waits for the one before");
      const error = { code: "channel_denied", message: "no", status: 403 };
      socket.say({ id: first.id, error });
      await until(() => one.of("answer").length);
      assert.deepEqual(one.of("answer")[0].error, error);
      await socket.answer("publish", { offset: 8 });
      await until(() => one.of("answer").length === 2);
      assert.equal(server.requests.length, 0, "there was no request beside it");
    }, { pages: 2 }));

  it("publishes beside it, with the same id, what was not answered before it ended", () =>
    story(async ({ server, page, socket }) => {
      page.say({ type: "publish", request: 1, id: "mine", channel: "c", data: 1 });
      await until(() => socket.asked("publish").length);
      socket.close(1006);
      const ended = Date.now();
      await until(() => page.of("answer").length);
      assert.ok(Date.now() - ended < 5000, "at once, and not when the answer is late");
      assert.equal(page.of("answer")[0].result.offset, 1);
      const [{ body }] = server.publications;
      assert.deepEqual(body, socket.asked("publish")[0].params);
      assert.deepEqual([body.id, server.publications.length], ["mine", 1]);
    }));

  it("publishes beside it what a newer token than its own may grant", () =>
    story(async ({ server, page, socket, add }) => {
      const error = { code: "channel_denied", message: "no", status: 403 };
      page.say({ type: "publish", request: 1, channel: "c", data: 1 });
      await socket.answer("publish", null, error);
      await until(() => page.of("answer").length);
      assert.equal(server.publications.length, 0, "there was no other token");
      const later = add(["c"]);
      await until(() => later.state === "live");
      later.say({ type: "publish", request: 1, channel: "c", data: 2 });
      await until(() => socket.asked("publish").length === 2);
      await socket.answer("publish", null, error);
      await until(() => later.of("answer").length);
      assert.equal(later.of("answer")[0].result.offset, 1);
      assert.deepEqual(server.publications.map(({ body }) => body.data), [2]);
    }));

  it("is not asked for more than it takes, nor faster", () =>
    story(async ({ server, pages, socket }) => {
      pages[0].say({ type: "publish", request: 1, channel: "c", data: "ž".repeat(4100) });
      await until(() => server.publications.length === 1);
      assert.deepEqual(socket.asked("publish"), []);
      for (const page of pages) page.say({ type: "presence", request: 2, channel: "c" });
      await until(() => server.asked("presence").length);
      assert.ok(socket.asked("presence").length <= 110, "as much as in a second");
    }, { pages: 130 }));

  it("is asked who is there in its own channels only", () =>
    story(async ({ server, page, socket }) => {
      page.say({ type: "presence", request: 1, channel: "c", limit: 5 });
      await until(() => socket.asked("presence").length);
      assert.deepEqual(socket.asked("presence")[0].params, { channel: "c", limit: 5 });
      await socket.answer("presence", { channel: "c", users: { u: { connections: 1 } } });
      await until(() => page.of("answer").length);
      assert.deepEqual(page.of("answer")[0].result.users, { u: { connections: 1 } });
      page.say({ type: "presence", request: 2, channel: "elsewhere" });
      await until(() => page.of("answer").length === 2);
      const bodies = server.asked("presence").map(({ body }) => body);
      assert.deepEqual(bodies, [{ channel: "elsewhere" }]);
    }));

  it("passes on who comes and goes, and how long to wait before a reload", () =>
    story(async ({ pages: [one, other], socket }) => {
      other.say({ type: "channels", channels: ["elsewhere"] });
      socket.say({ type: "join", channels: ["c"], users: [{ user: "7", name: "Bo" }] },
                 { type: "reset", channels: ["c"], reason: "epoch", delay: 900, cursor: "1~9" });
      await until(() => one.of("reset").length);
      assert.deepEqual(one.of("join"), [{ type: "join", channel: "c",
                                          users: [{ user: "7", name: "Bo" }] }]);
      assert.equal(one.of("reset")[0].delay, 900);
      assert.deepEqual([other.of("join"), other.of("reset")], [[], []]);
    }, { pages: 2 }));
});
