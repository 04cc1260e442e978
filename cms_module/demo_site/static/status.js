/**
 * What push is doing: `push.info()` in words, the time a signal takes, and every event as it
 * happens.
 */
"use strict";

(() => {
  const STATES = {
    connecting: "The connection is being made.",
    live: "Everything is connected. News arrives by itself.",
    delayed: "The push server cannot reach its log. News comes when it can.",
    retrying: "There is no connection just now. The page keeps trying.",
    waiting: "The site does not answer. The page keeps asking.",
    signed_out: "You are logged out.",
    revoked: "You are logged out.",
    closed: "There is no connection to the push server. Reload the page to try again.",
  };
  const FACTS = {
    state: "Connection",
    transport: "Way of delivery",
    transportReason: "Why this way",
    bridge: "Page and frame talk by",
    sharing: "Tabs share it by",
    user: "Logged in as",
    heard: "Last sign of life",
    connection: "Connection number",
    server: "Push server",
    version: "Version",
    problem: "Last problem",
  };
  const WAYS = {
    stream: "a stream that stays open",
    poll: "long poll: ask, wait, ask again",
    sse: "server-sent events",
    websocket: "WebSocket",
    worker: "a SharedWorker",
    locks: "one tab that leads, chosen by a lock",
    lease: "one tab that leads, chosen by a lease",
    none: "nothing: each has its own",
    "document.domain": "direct calls (document.domain)",
    postMessage: "messages (postMessage)",
  };
  const SIGNALS = 10;
  const PATIENCE = 5000;
  const LINES = 200;

  const facts = document.getElementById("facts");
  const summary = document.getElementById("summary");
  const log = document.getElementById("log");

  function show(value) {
    if (value === true) return "yes";
    if (value === false) return "no";
    return WAYS[value] || String(value);
  }

  function refresh() {
    const info = site.push.info();
    const state = STATES[info.state] || info.state;
    if (summary.textContent !== state) summary.textContent = state;
    const heard = info.cursorAge ?? null;
    const values = {
      ...info,
      heard: heard === null ? "" : `${Math.max(0, Math.round(heard / 1000))} s ago`,
      problem: info.lastError ? info.lastError.message : "",
    };
    const lines = [];
    for (const [name, label] of Object.entries(FACTS)) {
      const value = values[name];
      if (value === "" || value === null || value === undefined) continue;
      const term = document.createElement("dt");
      term.textContent = label;
      const text = document.createElement("dd");
      text.textContent = show(value);
      text.dataset.fact = name;
      lines.push(term, text);
    }
    facts.replaceChildren(...lines);
  }

  function note(what, detail = "") {
    const line = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = new Date().toLocaleTimeString([], { hourCycle: "h23" });
    const word = document.createElement("strong");
    word.textContent = what;
    const text = document.createElement("span");
    text.textContent = detail;
    line.append(time, word, text);
    log.prepend(line);
    while (log.children.length > LINES) log.lastElementChild.remove();
  }

  const { push } = site;
  push.on("status", (info) => {
    refresh();
    note("Status", [STATES[info.state] || info.state, WAYS[info.transport] || info.transport].filter(Boolean).join(" "));
  });
  push.on("subscribed", (channels) => note("Listening", (channels || []).join(", ")));
  push.on("recovered", (channels) => note("Caught up", `nothing missed in ${(channels || []).join(", ")}`));
  push.on("reset", (channels, reason) => note("Reload", `${(channels || []).join(", ")} (${reason})`));
  push.on("error", (error) => note("Problem", error.message));

  const trips = new Map();
  push.subscribe(`user:${site.user}`, (data, { offset }) => {
    note("News", `number ${offset} for you: ${data?.type || "something"}`);
    if (data?.type === "echo") trips.get(data.mark)?.(performance.now());
  });
  push.subscribe("chat:lobby", (data, { offset }) => note("News", `number ${offset} in the chat`));
  push.subscribe("draw:board", (data, { offset }) => note("News", `number ${offset} on the whiteboard`));
  push.subscribe("slides:tour", (data, { offset }) => note("News", `number ${offset} of the slides`));
  refresh();
  setInterval(refresh, 1000);

  // Timing

  const form = document.getElementById("echo");
  const result = document.getElementById("trip-result");
  const bars = document.getElementById("bars");

  async function trip() {
    const mark = crypto.getRandomValues(new Uint32Array(2)).join("-");
    const start = performance.now();
    const arrived = new Promise((done, fail) => {
      trips.set(mark, done);
      setTimeout(() => fail(new Error("A signal did not come back.")), PATIENCE);
    });
    arrived.catch(() => {});
    try {
      const { ok } = await site.post("/status/echo", { mark });
      if (!ok) throw new Error("The site could not reach the push server.");
      return (await arrived) - start;
    } finally {
      trips.delete(mark);
    }
  }

  function drawBars(times) {
    const highest = Math.max(...times, 10);
    bars.replaceChildren(...times.map((time) => {
      const bar = document.createElement("span");
      bar.style.height = `${Math.max(4, (time / highest) * 100)}%`;
      bar.title = `${time.toFixed(1)} ms`;
      return bar;
    }));
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const times = [];
    result.textContent = "On the way …";
    try {
      for (let i = 0; i < SIGNALS; i += 1) {
        times.push(await trip());
        drawBars(times);
      }
      const middle = [...times].sort((one, other) => one - other)[Math.floor(times.length / 2)];
      result.textContent = `${middle.toFixed(0)} ms, all the way round.`;
    } catch (error) {
      result.textContent = error.message;
    }
  });
})();
