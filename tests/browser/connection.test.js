/**
 * The shared connection against a server of paper: what a browser test could only hope to hit.
 *
 * The files are those that are served. Only the ages of pages are set by hand.
 */
"use strict";

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { TestPage, json, publication, scene, servers, until } = require("./paper.js");

describe("the shared connection", { concurrency: true }, () => {
  it("gives a page each publication once, whatever comes twice", () =>
    scene(async ({ server, page }) => {
      const [stream] = server.streams;
      stream.say(...[1, 2, 2, 1].map((offset) => publication("c", offset)));
      stream.say(publication("c", 3));
      await until(() => page.got.length >= 3);
      assert.deepEqual(page.got, [1, 2, 3]);
      stream.end();
      const next = await until(() => server.streams[1]);
      assert.equal(next.request.query.get("since"), "1~3");
      next.hello("1~3", { type: "recovered", channels: ["c"] }, publication("c", 2),
                 publication("c", 3), publication("c", 4));
      await until(() => page.got.length >= 4);
      assert.deepEqual(page.got, [1, 2, 3, 4]);
      assert.deepEqual(page.of("recovered").map(({ channels }) => channels), [["c"]]);
      assert.deepEqual(page.of("reset"), []);
    }));

  it("begins anew where continuity ended, and says so", () =>
    scene(async ({ server, page }) => {
      server.streams[0].say(publication("c", 7));
      server.streams[0].end();
      const next = await until(() => server.streams[1]);
      next.hello("1~0", { type: "reset", channels: ["c"], reason: "epoch" }, publication("c", 1));
      await until(() => page.got.length >= 2);
      assert.deepEqual(page.got, [7, 1]);
      assert.deepEqual(page.of("reset"), [{ type: "reset", channels: ["c"], reason: "epoch" }]);
    }));

  it("begins anew where the log is replaced while it is connected", () =>
    scene(async ({ server, page }) => {
      server.streams[0].say(publication("c", 9));
      await until(() => page.got.length);
      server.streams[0].say({ type: "reset", channels: ["c"], reason: "epoch", cursor: "1~new" },
                            publication("c", 1, "again"));
      await until(() => page.got.length === 2);
      assert.deepEqual(page.of("reset").map(({ channels }) => channels), [["c"]]);
    }));

  it("says when news is held up on the server's side, and when it flows again", () =>
    scene(async ({ server, page }) => {
      const states = () => page.of("status").map(({ status }) => status.state);
      server.streams[0].say({ type: "degraded", degraded: true });
      await until(() => states().at(-1) === "delayed");
      server.streams[0].say({ type: "degraded", degraded: false });
      await until(() => states().at(-1) === "live");
    }));

  it("says so when the server does not take its cursor any more", () =>
    scene(async ({ server, page }) => {
      const refused = { error: { code: "cursor_malformed", message: "what is this?" } };
      server.onStream = ({ query }) => (query.get("since") ? json(refused, 400) : null);
      server.streams[0].end();
      await until(() => server.streams[1]);
      assert.deepEqual(page.of("reset").map(({ reason }) => reason), ["cursor_malformed"]);
    }));

  it("takes a channel that is new to the cursor for a beginning, not for a loss", () =>
    scene(async ({ server, page }) => {
      page.say({ type: "channels", channels: ["c", "new"] });
      const next = await until(() => server.streams[1]);
      assert.deepEqual(next.request.query.getAll("channel"), ["c", "new"]);
      next.hello("1~0", { type: "recovered", channels: ["c"] },
                 { type: "reset", channels: ["new"], reason: "unknown" }, publication("new", 5));
      await until(() => page.got.length);
      assert.deepEqual(page.of("reset"), []);
      assert.deepEqual(page.of("recovered"), [], "nothing was interrupted");
      // The same words about a channel that was there before are a loss.
      next.end();
      (await until(() => server.streams[2])).hello("1~0",
        { type: "reset", channels: ["new"], reason: "unknown" });
      await until(() => page.of("reset").length);
    }));

  it("spares the page instance that a publication excludes, and no other", () =>
    scene(async ({ server, pages: [author, other] }) => {
      server.streams[0].say(publication("c", 1, "stroke", { exclude: author.instance }),
                            publication("c", 2, "next"));
      await until(() => author.got.length && other.got.length >= 2);
      assert.deepEqual(author.got, ["next"]);
      assert.deepEqual(other.got, ["stroke", "next"]);
    }, { pages: 2 }));

  it("brings one page up to date while the others go on", () =>
    scene(async ({ server, page, add }) => {
      let release;
      server.onPoll = () => new Promise((done) => { release = done; });
      const back = add(["c"], { since: "1~4" });
      await until(() => server.polls.length);
      assert.equal(server.polls[0].query.get("since"), "1~4");
      assert.equal(server.polls[0].query.get("timeout"), "0");
      server.streams[0].say(publication("c", 7), publication("c", 8));
      await until(() => page.got.length === 2);
      assert.deepEqual(back.got, [], "live publications wait for the earlier ones");
      release({ cursor: "1~7", control: [{ type: "recovered", channels: ["c"] }],
                publications: [5, 6, 7].map((n) => publication("c", n)) });
      await until(() => server.polls.length === 2);
      release({ cursor: "1~7", control: [], publications: [] });
      await until(() => back.got.length >= 4);
      assert.deepEqual(back.got, [5, 6, 7, 8]);
      assert.deepEqual(page.got, [7, 8]);
      assert.equal(server.streams.length, 1, "the shared connection was not touched");
    }));

  it("tells all pages where they are when another one leads", () =>
    scene(async ({ server, connection, pages: [one, other], add }) => {
      add(["d"]);
      (await until(() => server.streams[1])).hello("1~5", publication("d", 6));
      await until(() => connection.arrivals.cursor === "1~6");
      connection.retire();
      for (const page of [one, other]) assert.equal(page.of("heard").at(-1).cursor, "1~6");
    }, { pages: 2 }));

  it("goes on for all pages with one request where they all are at the same place", () => {
    let begin;
    return scene(async ({ server, add }) => {
      const pages = [["c"], ["c", "d"], ["e"]].map((channels) => add(channels, { since: "1~7" }));
      const behind = add(["c"], { since: "1~3" });
      await until(() => behind.of("status").length);
      begin();
      const stream = await until(() => server.streams[0]);
      assert.equal(stream.request.query.get("since"), "1~7");
      assert.deepEqual(stream.request.query.getAll("channel"), ["c", "d", "e"]);
      // Still at the same place: nothing has come yet.
      const late = add(["d"], { since: "1~7" });
      await until(() => late.of("status").length);
      stream.hello("1~7", { type: "recovered", channels: ["c", "d", "e"] }, publication("c", 8));
      await until(() => [...pages, late].every((page) => page.state === "live"));
      await until(() => behind.got.length);
      assert.deepEqual(server.polls.map(({ query }) => query.get("since"))[0], "1~3");
      assert.ok(server.polls.every(({ query }) => query.get("since") !== "1~7"));
      // Not any more.
      const later = add(["d"], { since: "1~7" });
      await until(() => server.polls.some(({ query }) => query.get("since") === "1~7"));
      assert.deepEqual(later.of("reset"), []);
    }, { greet: false, pages: 0, ready: new Promise((done) => { begin = done; }) });
  });

  it("gives nothing again to a page that is ahead of the connection", () =>
    scene(async ({ server, add }) => {
      server.onPoll = () => ({ cursor: "1~9", control: [], publications: [] });
      const ahead = add(["c"], { since: "1~9", seen: [["c", 9]] });
      await until(() => server.polls.length);
      server.streams[0].say(...[8, 9, 10].map((offset) => publication("c", offset)));
      await until(() => ahead.got.length);
      assert.deepEqual(ahead.got, [10]);
    }));

  it("tells a page to reload when its catch-up cannot be had", () =>
    scene(async ({ server, add }) => {
      server.onPoll = () => ({ cursor: "1~9", publications: [],
                               control: [{ type: "reset", channels: ["c"], reason: "trimmed" }] });
      const back = add(["c"], { since: "1~old" });
      await until(() => back.of("reset").length);
      assert.equal(back.of("reset")[0].reason, "trimmed");
    }));

  it("gives a page that catches up no place that it has not reached", () =>
    scene(async ({ server, add }) => {
      server.onPoll = () => new Promise(() => undefined);
      server.streams[0].say(publication("c", 7));
      const back = add(["c"], { since: "1~4" });
      await until(() => server.polls.length && back.of("subscribed").length);
      server.streams[0].say(publication("c", 8), { type: "ping", cursor: "1~8" });
      await new Promise((done) => setTimeout(done, 20));
      assert.deepEqual(back.messages.filter(({ cursor }) => cursor), []);
    }));

  it("does not say that a channel is on which the next request leaves out", () =>
    scene(async ({ server, connection, pages: [one, other] }) => {
      one.say({ type: "channels", channels: ["c", "d"] });
      (await until(() => server.streams[1])).hello("1~1");
      await until(() => one.of("subscribed").some(({ channels }) => channels.includes("d")));
      one.say({ type: "channels", channels: ["c"] });
      connection.change();
      const without = await until(() => server.streams[2]);
      other.say({ type: "channels", channels: ["c", "d"] });
      without.hello("1~3");
      // Soon, and not when nobody has wanted it for long.
      const next = await until(() => server.streams[3]);
      assert.deepEqual(other.of("subscribed").flatMap(({ channels }) => channels), ["c"]);
      next.hello("1~5", publication("d", 6));
      await until(() => other.got.length);
      assert.deepEqual(other.got, [6]);
    }, { pages: 2 }));

  it("brings a page up to date that came while news was held up", () =>
    scene(async ({ server, page, add }) => {
      server.streams[0].say({ type: "degraded", degraded: true });
      await until(() => page.state === "delayed");
      server.onPoll = () => ({ cursor: "1~5", control: [], publications: [] });
      const back = add(["c"], { since: "1~4" });
      await until(() => back.state === "delayed");
      server.streams[0].say({ type: "degraded", degraded: false }, publication("c", 6));
      await until(() => back.got.length);
    }));

  it("goes by what a page wants last, however long its token takes", () =>
    scene(async ({ server, connection }) => {
      let read;
      connection.session.checkClock = () => new Promise((done) => { read = done; });
      const late = new TestPage(connection, server).attach(["d"]);
      await until(() => read);
      late.say({ type: "channels", channels: ["e"] });
      read();
      const next = await until(() => server.streams[1]);
      assert.deepEqual(next.request.query.getAll("channel"), ["c", "e"]);
      late.say({ type: "detach" });
    }));

  it("does not ask what was missed in a channel that is not granted", () =>
    scene(async ({ server, page, add }) => {
      const back = add(["no"], { since: "1~4" });
      (await until(() => server.streams[1])).say(
        { type: "hello", connection: "c", heartbeat: 25, cursor: "1~5", channels: ["c"],
          denied: ["no"] });
      await until(() => back.of("denied").length);
      server.streams[1].say(publication("c", 6));
      await until(() => page.got.length);
      assert.equal(server.polls.length, 0);
      assert.deepEqual(back.of("reset"), []);
    }));

  it("tells a page that joins when the server was last heard", () =>
    scene(async ({ server, page, add }) => {
      const begun = page.of("status").at(-1).status.heardAt;
      await until(() => Date.now() > begun);
      server.streams[0].say(publication("c", 1));
      await until(() => page.got.length);
      const late = add(["c"]);
      await until(() => late.of("status").length);
      assert.ok(late.of("status")[0].status.heardAt > begun);
    }));

  it("answers a page that has not heard of it for long", () =>
    scene(async ({ page }) => {
      const before = page.messages.length;
      page.say({ type: "hear" });
      assert.equal(page.messages.length, before + 1);
    }));

  it("publishes with one id over all attempts, and stops where it is refused", () =>
    scene(async ({ server, page }) => {
      const answers = [() => { throw new TypeError("cut"); },
        () => json({ error: { code: "unavailable", message: "away" } }, 503),
        () => json({ channel: "c", offset: 1, duplicate: true })];
      server.onPublish = () => answers.shift()();
      page.say({ type: "publish", request: 1, channel: "c", data: { n: 1 }, exclude: "me" });
      await until(() => page.of("answer").length);
      assert.equal(page.of("answer")[0].result.duplicate, true);
      const bodies = server.publications.map(({ body }) => body);
      assert.equal(bodies.length, 3);
      assert.match(bodies[0].id, /^[0-9a-f]{32}$/);
      assert.deepEqual(bodies[1], bodies[0]);
      assert.deepEqual(bodies[2], bodies[0]);
      assert.equal(bodies[0].exclude, "me");

      server.onPublish = () => json({ error: { code: "channel_denied", message: "no" } }, 403);
      page.say({ type: "publish", request: 2, channel: "c", data: 1 });
      await until(() => page.of("answer").length === 2);
      const error = { status: 403, code: "channel_denied", message: "no" };
      assert.deepEqual(page.of("answer")[1], { type: "answer", request: 2, error });
      assert.equal(server.publications.length, 4);
    }));

  it("asks for a new token when one is refused, and never offers that one again", () =>
    scene(async ({ server, page }) => {
      const bad = server.requests[0].token;
      server.onStream = ({ token }) =>
        token === bad ? json({ error: { code: "token_invalid", message: "no" } }, 401) : null;
      const good = server.token();
      page.answer = () => ({ token: page.of("token").length < 2 ? bad : good });
      server.streams[0].end();
      const next = await until(() => server.streams[1]);
      assert.equal(next.request.token, good);
      assert.equal(server.asked("subscribe/stream").filter(({ token }) => token === bad).length, 2);
    }));

  it("goes on with a newer token that a page brought meanwhile", () =>
    scene(async ({ server, page, add }) => {
      add(["c"]);
      const newer = [...servers].filter(([, owner]) => owner === server).pop()[0];
      server.streams[0].say({ type: "reconnect", delay: 0, reason: "expired" });
      assert.equal((await until(() => server.streams[1])).request.token, newer);
      server.streams[1].hello("1~0");
      await until(() => page.state === "live");
      add(["c"]);
      server.streams[1].say({ type: "expiring", expires: 1 });
      assert.notEqual((await until(() => server.streams[2])).request.token, newer);
      assert.deepEqual(page.of("token"), [], "nobody had to be asked");
    }));

  it("tells a page when a new token takes a channel away, or gives it back", () =>
    scene(async ({ server, connection, page }) => {
      const hello = { type: "hello", connection: "c", heartbeat: 25, cursor: "1~0" };
      const names = (type) => page.of(type).map(({ channels }) => channels);
      assert.deepEqual(names("subscribed"), [["c"]]);
      await connection.session.refresh();
      (await until(() => server.streams[1])).say({ ...hello, channels: [], denied: ["c"] });
      await until(() => page.of("denied").length);
      await connection.session.refresh();
      (await until(() => server.streams[2])).say({ ...hello, channels: ["c"], denied: [] },
        { type: "reset", channels: ["c"], reason: "unknown" });
      await until(() => page.of("subscribed").length === 2);
      assert.deepEqual([names("denied"), names("subscribed")], [[["c"]], [["c"], ["c"]]]);
    }));

  it("lets a page go that has no token, and stays for the others", () =>
    scene(async ({ server, connection, pages: [one, other] }) => {
      one.answer = () => ({ signedOut: true });
      one.say({ type: "wake", why: "visible" });
      await connection.session.refresh();
      assert.deepEqual(one.of("released"), [{ type: "released", reason: "signed_out" }]);
      server.streams.at(-1).request.signal.aborted || (await until(() => server.streams[1]));
      (await until(() => server.streams[1])).hello("1~0", publication("c", 1));
      await until(() => other.got.length);
      assert.deepEqual(one.got, []);
    }, { pages: 2 }));

  it("lets all pages of another user go, and last the one whose frame it runs in", () =>
    scene(async ({ server, connection, pages }) => {
      const host = new TestPage(connection, server, true).attach(["c"]);
      const left = [];
      for (const page of [...pages, host]) {
        page.answer = () => ({ token: server.token({ sub: "somebody else" }) });
        const take = page.port.postMessage;
        page.port.postMessage = (message) => {
          take(message);
          if (message.type !== "released") return;
          left.push(page);
          if (page === host) connection.retire();
        };
      }
      await until(() => host.state === "live");
      host.say({ type: "wake", why: "visible" });
      await connection.session.check();
      assert.equal(left.length, 7);
      assert.equal(left.at(-1), host);
    }, { pages: 6 }));

  it("does not take another user for the one whose token was refused", () =>
    scene(async ({ server, page, add }) => {
      server.onStream = () => json({ error: { code: "token_invalid", message: "no" } }, 401);
      page.answer = () => ({});
      const { token } = server.requests.at(-1);
      server.streams[0].end();
      await until(() => page.of("token").length);
      page.say({ type: "detach" });
      server.onStream = () => null;
      const back = add(["c"], { token });
      back.answer = () => ({ token: server.token({ sub: "somebody else" }) });
      await until(() => back.of("released").length);
      assert.deepEqual(back.of("released")[0].reason, "user_changed");
    }));

  it("asks anew who is signed in, where the last question may have been answered before", () =>
    scene(async ({ server, connection, page }) => {
      page.say({ type: "check" });
      await until(() => page.of("checked").length);
      let answer;
      page.answer = () => ({ token: server.token({ sub: "somebody else" }) });
      const take = page.port.postMessage;
      page.port.postMessage = (message) => {
        if (message.type !== "token" || answer) take(message);
        else answer = () => page.say({ type: "token", token: server.token() });
      };
      connection.session.refresh();
      page.say({ type: "check" });
      answer();
      await until(() => page.of("released").length);
    }));

  it("waits as long as the server asks, whoever looks at the page", () =>
    scene(async ({ server, connection, page }) => {
      let refusals = 0;
      server.onStream = () => (refusals++ ? null
        : json({ error: { code: "full", message: "full" } }, 503, { "Retry-After": "1" }));
      server.streams[0].end();
      await until(() => refusals);
      await until(() => connection.dialer.hurry);
      page.say({ type: "wake", why: "visible" });
      await until(() => server.streams[1]);
      const [, refused, next] = server.asked("subscribe/stream");
      assert.ok(next.at - refused.at >= 1000, `${next.at - refused.at} ms`);
      server.streams[1].hello("1~0");
      await until(() => page.state === "live");

      server.streams[1].say({ type: "reconnect", delay: 700, reason: "drain" });
      const said = Date.now();
      await until(() => page.state === "retrying");
      page.say({ type: "wake", why: "visible" });
      (await until(() => server.streams[2])).hello("1~0");
      assert.ok(server.asked("subscribe/stream").at(-1).at - said >= 690);
    }));

  it("does not hurry back when it had to make room for another", () =>
    scene(async ({ server, connection }) => {
      server.streams[0].say({ type: "reconnect", delay: 0, reason: "replaced" });
      await until(() => connection.dialer.ending);
      assert.ok(connection.dialer.ending.delay >= 30000);
    }));

  it("finds a crashed page by its silence, and takes it back if it was only asleep", () =>
    scene(async ({ server, connection, pages: [one, sleeper] }) => {
      sleeper.dead = true;
      sleeper.say({ type: "channels", channels: ["c", "dead"] });
      (await until(() => server.streams[1])).hello("1~0");
      for (let round = 0; round < 6; round += 1) {
        connection.audience.pingedAt = 0;
        connection.tick();
      }
      assert.equal(connection.audience.size, 1);
      const next = await until(() => server.streams[2], "its channels are given up");
      assert.deepEqual(next.request.query.getAll("channel"), ["c"]);
      sleeper.say({ type: "wake", why: "resume" });
      assert.equal(sleeper.of("unknown").length, 1, "the frame attaches again");
      assert.equal(one.of("unknown").length, 0);
    }, { pages: 2 }));

  it("asks for no more channels than the server takes, and names those left out", () => {
    const many = Array.from({ length: 70 }, (_, n) => `c${String(n).padStart(2, "0")}`);
    return scene(async ({ server, page }) => {
      assert.equal(server.streams[0].request.query.getAll("channel").length, 64);
      assert.deepEqual(page.of("denied"),
        [{ type: "denied", channels: many.slice(64), code: "too_many_channels" }]);
    }, { channels: many });
  });

  it("moves on when a stream brings nothing while a poll is answered", () =>
    scene(async ({ server, page }) => {
      await until(() => page.state === "live");
      const { transport, reason } = page.of("status").pop().status;
      assert.deepEqual([transport, reason], ["poll", "buffered"]);
      assert.ok(server.streams[0].request.signal.aborted);
      assert.equal(server.polls.at(-1).query.get("fallback"), "buffered");
    }, { greet: false }));

  it("moves on when something on the way has a page of its own where a stream should be", () =>
    scene(async ({ server, page }) => {
      await until(() => page.state === "live");
      const { transport, reason } = page.of("status").pop().status;
      assert.deepEqual([transport, reason], ["poll", "not_found"]);
      assert.equal(server.polls.at(-1).query.get("fallback"), "not_found");
    }, { greet: false, onStream: () => new Response("<h1>Not Found</h1>", { status: 404 }) }));

  it("does not poll in a loop when something answers in the server's place", () =>
    scene(async ({ server, page }) => {
      server.onPoll = () => ({ cursor: "1~p", publications: [], control: [] });
      await until(() => page.state === "live");
      await new Promise((done) => setTimeout(done, 2000));
      assert.ok(server.polls.length < 30, `${server.polls.length} polls`);
    }, { greet: false }));

  it("does not suspect a stream that was asked for before the computer slept", () =>
    scene(async ({ server, connection, page }) => {
      await until(() => server.streams[0]);
      connection.dialer.startedAt -= 600000;
      (await until(() => server.streams[1])).hello("1~0");
      await until(() => page.state === "live");
      assert.equal(server.polls.length, 0);
    }, { greet: false }));

  it("goes on with the token of a page that comes while another is asked in vain", () =>
    scene(async ({ server, page, add }) => {
      server.onStream = () => json({ error: { code: "token_invalid", message: "no" } }, 401);
      let answer;
      const take = page.port.postMessage;
      page.port.postMessage = (message) => {
        if (message.type === "token") answer = () => page.say({ type: "token" });
        else take(message);
      };
      server.streams[0].end();
      await until(() => answer);
      page.say({ type: "publish", request: 1, channel: "c", data: 1 });
      server.onStream = () => null;
      const other = add(["c"]);
      await until(() => other.of("status").length);
      answer();
      (await until(() => server.streams[1])).hello("1~0");
      await until(() => page.state === "live");
      assert.ok(!page.of("status").some(({ status }) => status.state === "waiting"));
      await until(() => page.of("answer").length);
      assert.equal(server.publications.length, 1, "what was to be published goes on with it, too");
    }));

  it("stays where a good connection was between two that fell silent at once", () =>
    scene(async ({ server, connection, page }) => {
      const greeted = async (number) => {
        (await until(() => server.streams[number])).hello("1~0");
        await until(() => connection.dialer.takes && page.state === "live");
        return server.streams[number];
      };
      const sleep = () => {
        connection.dialer.movedAt = 0;
        connection.dialer.check();
      };
      sleep();
      const good = await greeted(1);
      good.say({ type: "ping", cursor: "1~0" });
      await until(() => connection.dialer.takes === 2);
      good.end();
      await greeted(2);
      sleep();
      await greeted(3);
      assert.equal(server.polls.length, 0, "there was nothing to be proved");
    }));

  it("stays when the stream was only a little later than the poll", () =>
    scene(async ({ server, page }) => {
      await until(() => server.polls.length);
      await new Promise((done) => setTimeout(done, 300));
      server.streams[0].hello("1~0");
      await until(() => page.state === "live");
      await new Promise((done) => setTimeout(done, 1500));
      assert.equal(page.of("status").pop().status.transport, "stream");
      assert.equal(server.polls.length, 1);
    }, { greet: false }));

  it("stays when the poll fails as well", () =>
    scene(async ({ server, page }) => {
      server.onPoll = () => { throw new TypeError("unreachable"); };
      (await until(() => server.streams[1])).hello("1~0");
      await until(() => page.state === "live");
      assert.equal(page.of("status").pop().status.transport, "stream");
    }, { greet: false }));
});
