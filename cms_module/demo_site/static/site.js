/**
 * What every page of Linden House has: the connection, the bell, and the word for how it is.
 *
 * The other scripts of the site use `site`: `push`, `post` to send a form to the site without
 * leaving the page, `load` to ask the site for something, `when` for times.
 *
 * A page that makes its own connection (the slides do, to show how little it takes) has called
 * it `push`; then that is the one used here.
 */
"use strict";

const site = (() => {
  const facts = document.querySelector("meta[name=site]").dataset;

  function connect() {
    if (typeof push !== "undefined") return push;
    return Push.connect({ server: facts.push, token: "/push/token" });
  }
  const connection = connect();

  /** Ask the site for something. @param {string} path */
  async function load(path) {
    const answer = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  }

  /** Send fields to the site as a form would. @param {string} path @param {object} fields */
  async function post(path, fields = {}) {
    const body = new URLSearchParams({ form_token: facts.formToken, ...fields });
    const answer = await fetch(path, { method: "POST", headers: { Accept: "application/json" }, body });
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.error);
    return value;
  }

  /** The time of day, or the date if it was another day. @param {number} at unix seconds */
  function when(at) {
    const then = new Date(at * 1000);
    const today = then.toDateString() === new Date().toDateString();
    return then.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium" });
  }

  const bell = Notifications.mount({
    push: connection,
    channel: `user:${facts.user}`,
    bell: document.getElementById("notifications"),
    list: document.getElementById("notification-list"),
    load: () => load("/notifications.json"),
    markSeen: () => post("/notifications/seen"),
  });
  // The site says everything once. What it could not say to a push server that was away is here.
  connection.on("recovered", () => bell.reload());

  const WORDS = {
    connecting: "Connecting",
    live: "Live",
    delayed: "Delayed",
    retrying: "Reconnecting",
    waiting: "Waiting",
    signed_out: "Logged out",
    revoked: "Logged out",
    closed: "Not live",
  };
  const live = document.getElementById("live");
  const word = document.getElementById("live-text");
  let later = 0;

  function showState() {
    const { state } = connection.info();
    clearTimeout(later);
    // An interruption of a moment is nobody's business.
    later = setTimeout(() => {
      live.dataset.state = state;
      word.textContent = WORDS[state] || state;
    }, state === "retrying" ? 1000 : 0);
  }
  connection.on("status", showState);
  showState();

  // Logged out in another tab, or logged in as somebody else: what is shown here is not theirs.
  // A whole address, because in a direct call from the frame a short one is the frame's.
  connection.on("revoked", () => location.replace(`${location.origin}/`));

  const account = document.querySelector(".me");
  document.addEventListener("click", (event) => {
    if (!account.contains(event.target)) account.open = false;
  });
  account.addEventListener("keydown", (event) => {
    if (event.key === "Escape") account.open = false;
  });

  const send = document.getElementById("send");
  send?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const result = document.getElementById("send-result");
    try {
      await post(send.action, Object.fromEntries(new FormData(send)));
      result.textContent = "Sent.";
    } catch (error) {
      result.textContent = `Not sent: ${error.message}`;
    }
    setTimeout(() => (result.textContent = ""), 4000);
  });

  return { push: connection, user: facts.user, load, post, when };
})();
