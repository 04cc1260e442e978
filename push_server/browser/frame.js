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
 *   of the back/forward cache.
 *
 * Used by frame.html, whose data attributes the server fills in. Needs wire.js.
 */
"use strict";

(() => {
  const { PushWire } = globalThis;
  const { documentDomain = "", version = "", origins = "[]" } = document.documentElement.dataset;
  /** @type {string[]} */
  const siteOrigins = JSON.parse(origins);

  /** A worker that does not answer by then is taken for broken. */
  const WORKER_TIMEOUT = 5000;
  /** A worker pings every 30 seconds; after so long without a word it is asked, then replaced. */
  const WORKER_SILENCE = 150000;
  const WATCH = 30000;
  /** Where avoided transports are remembered, and how far ahead that may reach. */
  const MEMORY = "push.avoided";
  const MEMORY_LIMIT = 60 * 60 * 1000;
  /** Everything the connection needs when it has to run here. */
  const IN_FRAME = ["transports.js", "session.js", "pages.js", "connection.js"];

  /** @type {MessagePort} to the page */
  let page;
  /** @type {MessagePort | null} to the connection */
  let link = null;
  /** @type {{origin: string, key: string, instance: string, token: string, channels: string[],
   *   since?: string | null}} what the page told us */
  let wish;
  let direct = false;
  let attached = false;
  let heardAt = 0;
  /** @type {any} the connection, when it runs in this frame */
  let local = null;
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
      if (message.type === "channels") wish.channels = message.channels;
      if (message.type === "token" && message.token) wish.token = message.token;
      link?.postMessage(message);
    }
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

  /** Find the worker that pages like ours share, or do its work here. */
  async function join() {
    const claims = await PushWire.readToken(wish.token);
    const name = PushWire.workerName(version, wish.origin, claims);
    if (local || typeof SharedWorker !== "function") {
      joinHere();
      return;
    }
    try {
      const worker = new SharedWorker(`connection.js?v=${encodeURIComponent(version)}`, { name });
      const timer = setTimeout(joinHere, WORKER_TIMEOUT);
      worker.onerror = () => {
        clearTimeout(timer);
        if (!heardAt) joinHere();
      };
      attach(worker.port, () => clearTimeout(timer));
    } catch {
      // Where the user blocks storage, the constructor throws.
      joinHere();
    }
  }

  /** No worker: the connection lives and dies with this frame. */
  async function joinHere() {
    for (const name of IN_FRAME) {
      if (!local) await load(`${name}?v=${encodeURIComponent(version)}`);
    }
    local = local || new globalThis.PushConnection({ shared: false });
    const { port1, port2 } = new MessageChannel();
    local.accept(port1);
    attach(port2);
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
    attached = true;
    heardAt = 0;
    port.onmessage = ({ data }) => {
      if (port !== link) return;
      heardAt = Date.now();
      if (data.type === "welcome") onWelcome?.();
      else fromConnection(data);
    };
    const { instance, token, channels, since } = wish;
    port.postMessage({ type: "attach", instance, token, channels, since, avoided: recall() });
  }

  /**
   * What proved not to work on this network is worth remembering: a worker that begins anew with
   * every page would spend seconds of each on finding out. Nothing else is ever stored.
   * @returns {[string, Avoided][]}
   */
  function recall() {
    try {
      const found = JSON.parse(localStorage.getItem(MEMORY) || "[]");
      return found.filter((/** @type {any} */ [name, { reason, until, times }]) =>
        typeof name === "string" && typeof reason === "string" && times > 0 &&
        until > Date.now() && until < Date.now() + MEMORY_LIMIT);
    } catch {
      return [];
    }
  }

  /** @param {unknown} avoided */
  function remember(avoided) {
    try {
      localStorage.setItem(MEMORY, JSON.stringify(avoided));
    } catch {
      // The user blocks storage; it is found out anew each time.
    }
  }

  function detach() {
    link?.postMessage({ type: "detach" });
    link = null;
  }

  /** @param {any} message */
  function fromConnection(message) {
    if (message.cursor) wish.since = message.cursor;
    if (message.type === "ping") link?.postMessage({ type: "alive" });
    else if (message.type === "unknown") rejoin();
    else if (message.type === "avoided") remember(message.avoided);
    else toPage(message);
    if (message.type === "released" || message.type === "revoked") leave();
  }

  function leave() {
    attached = false;
    detach();
  }

  function rejoin() {
    if (attached) join();
  }

  // ---- The life of the page

  /** @param {string} why */
  function wake(why) {
    link?.postMessage({ type: "wake", why });
  }

  window.addEventListener("pagehide", detach);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) rejoin();
  });
  window.addEventListener("online", () => wake("online"));
  document.addEventListener("resume", () => wake("resume"));
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") wake("visible");
  });

  // A worker can die without a word (the browser ran out of memory, say).
  setInterval(() => {
    if (!link || local || !heardAt || Date.now() - heardAt < WORKER_SILENCE) return;
    const before = heardAt;
    wake("silence");
    link.postMessage({ type: "hear" });
    setTimeout(() => {
      if (link && heardAt === before) rejoin();
    }, WORKER_TIMEOUT);
  }, WATCH);
})();
