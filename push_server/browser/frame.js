/**
 * The hidden frame: a bridge between one page of the site and the shared connection.
 *
 * Rules that hold in this file:
 * - The first word comes from the page, by postMessage, and is heeded only if its source is our
 *   parent window and its origin is, character for character, one of the configured ones.
 *   Everything after it goes through the MessagePort that came with it, which nobody else has.
 * - Publications are handed over by a direct call where both sides set document.domain and a
 *   real call proved that the browser honours it. Browsers refuse silently; nothing else than
 *   the call is believed. Only strings cross. Where it fails, the port carries them.
 * - The frame holds no connection while its page is not shown: it says goodbye in `pagehide`
 *   and comes back with its cursor in `pageshow`. Never `unload`, which would keep the page out
 *   of the back/forward cache. One that has a connection of its own gives it up in `freeze`.
 * - Whatever the page has sent and nobody has answered is sent again to the next connection, with
 *   the same id, so that a change of leaders loses no publication and doubles none.
 * - Frames tell each other who is signed in, so that another user ends the one before at once.
 *
 * Used by frame.html, whose data attributes the server fills in. Needs wire.js and memory.js.
 */
"use strict";

(() => {
  const { PushMemory, PushWire } = globalThis;
  const { documentDomain = "", version = "", origins = "[]" } = document.documentElement.dataset;
  /** @type {string[]} */
  const siteOrigins = JSON.parse(origins);

  /** A worker that does not answer by then is taken for broken. */
  const WORKER_TIMEOUT = 5000;
  /** A worker pings every 30 seconds; after so long without a word it is asked, then replaced. */
  const WORKER_SILENCE = 150000;
  const WATCH = 30000;
  /** What is needed when the connection has to run here. */
  const IN_FRAME = ["locks.js", "share.js", "connection.js"];

  /** Where the user blocks storage, the constructor throws. */
  const canBroadcast = () => {
    try {
      new BroadcastChannel("push").close();
      return true;
    } catch {
      return false;
    }
  };
  /**
   * How pages come to share a connection, best first. "none" is always there and shares nothing.
   * @type {Record<string, () => boolean>}
   */
  const WAYS = {
    worker: () => typeof SharedWorker === "function",
    locks: () => canBroadcast() && globalThis.PushLocks.WebLock.usable,
    lease: () => canBroadcast() && globalThis.PushLocks.Lease.usable,
    none: () => true,
  };

  /** @type {MessagePort} to the page */
  let page;
  /** @type {MessagePort | null} to the connection */
  let link = null;
  /** @type {{origin: string, key: string, instance: string, token: string, channels: string[],
   *   since?: string | null, share?: string, transports?: string[]}} what the page told us */
  let wish;
  let direct = false;
  /** Whether the page wants a connection; it does not after a goodbye. */
  let wanted = false;
  /** Counts the attempts to find one: an attempt that was overtaken stops. */
  let turns = 0;
  let heardAt = 0;
  /** Ways that were tried and did not work. @type {Set<string>} */
  const failed = new Set();
  /** @type {Set<string>} */
  const loaded = new Set();
  /** @type {any} the connection, when it runs in this frame for its own page alone */
  let local = null;
  /** @type {any} our part in the group that shares a connection without a worker */
  let share = null;
  /** @type {BroadcastChannel | null} where frames say who is signed in */
  let neighbours = null;
  /** Whether another user was seen and no connection has said yet that it made sure of ours. */
  let doubted = false;
  /** The last offset that the page was given of each channel: the next connection may be behind
   * the one before. @type {Map<string, number>} */
  const seen = new Map();
  /** What waits for its answer, by the number of the request. @type {Map<number, any>} */
  const unanswered = new Map();
  /** @type {any[]} for the page, gathered until the end of this task */
  let outbox = [];

  window.addEventListener("message", (event) => {
    if (page || event.source !== window.parent || window.parent === window) return;
    if (!siteOrigins.includes(event.origin)) return;
    if (event.data?.push !== "connect" || event.ports.length !== 1) return;
    [page] = event.ports;
    page.onmessage = ({ data }) => fromPage(data, event.origin);
    page.postMessage([{ type: "ready", version, documentDomain }]);
  });

  /** @param {any} message @param {string} origin */
  function fromPage(message, origin) {
    if (message.type === "start") {
      wish = { ...message, origin };
      direct = message.documentDomain === documentDomain && documentDomain !== "" && proveDirect();
      toPage({ type: "bridge", bridge: direct ? "document.domain" : "postMessage" });
      join();
    } else if (message.type === "close") {
      leave();
    } else {
      if (message.type === "channels") want(message.channels);
      if (message.type === "token" && message.token) wish.token = message.token;
      if (message.type === "publish") message.id ??= PushWire.randomId();
      if (message.request) unanswered.set(message.request, message);
      link?.postMessage(message);
    }
  }

  /** @param {string[]} channels */
  function want(channels) {
    wish.channels = channels;
    for (const name of seen.keys()) if (!channels.includes(name)) seen.delete(name);
  }

  // ---- Frame to page

  /** Whether a call into the page really works. */
  function proveDirect() {
    try {
      document.domain = documentDomain;
      const proof = PushWire.randomId();
      return callPage(JSON.stringify([{ type: "proof", proof }])) === proof;
    } catch {
      return false;
    }
  }

  /** @param {string} text @returns {unknown} */
  function callPage(text) {
    return /** @type {any} */ (window.parent).Push.receive(wish.key, text);
  }

  /** @param {any} message */
  function toPage(message) {
    outbox.push(message);
    if (outbox.length === 1) queueMicrotask(emptyOutbox);
  }

  /** One call, or one postMessage, for all that came in this task. */
  function emptyOutbox() {
    const messages = outbox;
    outbox = [];
    if (direct) {
      try {
        callPage(JSON.stringify(messages));
        return;
      } catch {
        direct = false;
        messages.push({ type: "bridge", bridge: "postMessage" });
      }
    }
    page.postMessage(messages);
  }

  // ---- Frame to connection

  /** Find the connection that pages like ours share, or make it. */
  async function join() {
    turns += 1;
    const turn = turns;
    wanted = true;
    const claims = await PushWire.readToken(wish.token);
    if (turn !== turns) return;
    const name = PushWire.workerName(version, wish.origin, claims, wish.transports);
    if (claims) meetNeighbours(claims);
    if (share) {
      share.again();
      return;
    }
    const asked = wish.share && wish.share !== "auto" ? [wish.share, "none"] : Object.keys(WAYS);
    const ways = asked.filter((way) => Object.hasOwn(WAYS, way) && !failed.has(way));
    if (ways[0] === "worker" && WAYS.worker()) {
      joinWorker(name);
      return;
    }
    await loadAll(IN_FRAME);
    if (turn !== turns) return;
    const way = ways.find((each) => each !== "worker" && WAYS[each]());
    if (way === "none") joinAlone();
    else joinGroup(way, name);
  }

  /** @param {string} name */
  function joinWorker(name) {
    const turn = turns;
    const giveUp = () => {
      if (turn !== turns) return;
      failed.add("worker");
      join();
    };
    try {
      const worker = new SharedWorker(`connection.js?v=${encodeURIComponent(version)}`, { name });
      const timer = setTimeout(giveUp, WORKER_TIMEOUT);
      worker.onerror = () => {
        clearTimeout(timer);
        if (!heardAt) giveUp();
      };
      attach(worker.port, () => clearTimeout(timer));
    } catch {
      // Where the user blocks storage, the constructor throws.
      giveUp();
    }
  }

  /** No worker: one frame of all that there are has the connection. */
  function joinGroup(/** @type {string} */ way, /** @type {string} */ name) {
    const { WebLock, Lease } = globalThis.PushLocks;
    share = new globalThis.PushShare(name, way === "locks" ? WebLock : Lease, {
      lead: ({ ready }) => new globalThis.PushConnection({ sharing: way, ready }),
      attach,
      denied: () => {
        failed.add(way);
        goAway();
        rejoin();
      },
    });
  }

  /** The connection lives and dies with this frame. */
  function joinAlone() {
    local = local || new globalThis.PushConnection({ sharing: "none" });
    const { port1, port2 } = new MessageChannel();
    local.accept(port1);
    attach(port2);
  }

  /** @param {string[]} names scripts beside this one; each is loaded once, however long it takes */
  async function loadAll(names) {
    await Promise.all(names.map(async (name) => {
      const source = `${name}?v=${encodeURIComponent(version)}`;
      for (let attempt = 0; !loaded.has(name); attempt += 1) {
        try {
          await load(source);
          loaded.add(name);
        } catch {
          await new Promise((done) => setTimeout(done, PushWire.backoff(attempt)));
        }
      }
    }));
  }

  /** @param {string} source a script beside this one */
  function load(source) {
    return new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = done;
      script.onerror = fail;
      document.head.append(script);
    });
  }

  /** @param {MessagePort} port @param {() => void} [onWelcome] */
  function attach(port, onWelcome) {
    detach();
    link = port;
    heardAt = 0;
    port.onmessage = ({ data }) => {
      if (port !== link) return;
      heardAt = Date.now();
      if (data.type === "welcome") onWelcome?.();
      else fromConnection(data);
    };
    const { instance, token, channels, since, transports } = wish;
    port.postMessage({ type: "attach", instance, token, channels, since, seen: [...seen],
                       transports, avoided: PushMemory.recall() });
    if (doubted) port.postMessage({ type: "check" });
    for (const message of unanswered.values()) port.postMessage(message);
  }

  function detach() {
    link?.postMessage({ type: "detach" });
    link = null;
  }

  /** @param {any} message */
  function fromConnection(message) {
    if (message.cursor) wish.since = message.cursor;
    if (message.type === "publications") {
      for (const { channel, offset } of message.items) seen.set(channel, offset);
    } else if (message.type === "reset") {
      for (const channel of message.channels) seen.delete(channel);
    }
    if (message.type === "ping") link?.postMessage({ type: "alive" });
    else if (message.type === "unknown") rejoin();
    else if (message.type === "checked") doubted = false;
    else if (message.type === "avoided") PushMemory.remember(message.avoided);
    else toPage(message);
    if (message.type === "answer") unanswered.delete(message.request);
    if (message.type === "released" || message.type === "revoked") leave();
  }

  function leave() {
    wanted = false;
    goAway();
  }

  /** Give up our part in the connection; if it is ours, another frame goes on with it. */
  function goAway() {
    turns += 1;
    detach();
    share?.leave();
    share = null;
    neighbours?.close();
    neighbours = null;
  }

  /**
   * Tell the other frames of this site who is signed in here. Whoever has another user's page
   * makes sure of it: in the same browser there is one session at a time. The others answer, for
   * a page that comes out of the back/forward cache has heard nothing meanwhile.
   * @param {Claims} claims
   */
  function meetNeighbours({ sub, sid }) {
    if (neighbours || !canBroadcast()) return;
    const who = JSON.stringify([sub, sid]);
    neighbours = new BroadcastChannel(`push ${wish.origin}`);
    neighbours.onmessage = ({ data }) => {
      if (data.who === who) return;
      doubted = true;
      link?.postMessage({ type: "check" });
      if (!data.answers) neighbours?.postMessage({ who, answers: true });
    };
    neighbours.postMessage({ who });
  }

  function rejoin() {
    if (wanted) join();
  }

  // ---- The life of the page

  /** @param {string} why */
  function wake(why) {
    link?.postMessage({ type: "wake", why });
    share?.check();
  }

  window.addEventListener("pagehide", goAway);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) rejoin();
  });
  // A frozen page reads nothing any more: its connection would only look alive.
  document.addEventListener("freeze", () => {
    if (share || local) goAway();
  });
  document.addEventListener("resume", () => {
    if (link) wake("resume");
    else rejoin();
  });
  window.addEventListener("online", () => wake("online"));
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") wake("visible");
  });

  // A worker can die without a word (the browser ran out of memory, say).
  setInterval(() => {
    if (!link || local || share || !heardAt || Date.now() - heardAt < WORKER_SILENCE) return;
    const before = heardAt;
    wake("silence");
    link.postMessage({ type: "hear" });
    setTimeout(() => {
      if (link && heardAt === before) rejoin();
    }, WORKER_TIMEOUT);
  }, WATCH);
})();
