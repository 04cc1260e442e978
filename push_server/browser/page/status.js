/**
 * The element that says in a word whether updates are coming.
 *
 * Rules that hold in this file:
 * - Words say it; the colour only repeats them.
 * - A short interruption is not worth an announcement.
 *
 * Part of push.js. Needs page.js.
 */
"use strict";

const SHOWN = {
  connecting: ["Connecting…", "#8a8f98"],
  live: ["Live", "#1a7f37"],
  delayed: ["Delayed", "#9a6700"],
  retrying: ["Reconnecting…", "#9a6700"],
  waiting: ["Waiting for the site…", "#9a6700"],
  signed_out: ["Signed out", "#8a8f98"],
  revoked: ["Signed out", "#8a8f98"],
  closed: ["Off", "#8a8f98"],
};
const CALM = 1000;

class PushStatus extends HTMLElement {
  constructor() {
    super();
    /** @type {Page | null} the connection it shows; the latest one unless set */
    this.push = null;
    /** @type {Page | null} what that is now */
    this._shown = null;
    this._dot = document.createElement("span");
    this._text = document.createElement("span");
    /** @type {any} */
    this._timer = 0;
    /** @type {() => void} */
    this._stop = () => undefined;
  }

  connectedCallback() {
    this.setAttribute("role", "status");
    Object.assign(this.style, { display: "inline-flex", alignItems: "center", gap: "0.4em" });
    this._dot.setAttribute("aria-hidden", "true");
    Object.assign(this._dot.style, { width: "0.6em", height: "0.6em", borderRadius: "50%",
                                     flex: "none" });
    this.replaceChildren(this._dot, this._text);
    this.bind();
  }

  /** Show a connection from now on, once there is one; called again when there is another. */
  bind() {
    this._shown = this.push || latest;
    if (!this._shown || !this.isConnected) return;
    this._stop();
    this._stop = this._shown.on("status", () => this._changed());
    this._show();
  }

  disconnectedCallback() {
    clearTimeout(this._timer);
    this._stop();
  }

  _changed() {
    clearTimeout(this._timer);
    const wait = this._shown?.info().state === "retrying" ? CALM : 0;
    this._timer = setTimeout(() => this._show(), wait);
  }

  _show() {
    const shown = /** @type {Page} */ (this._shown);
    const { state, transport, transportReason, lastError } = shown.info();
    const [text, colour] = SHOWN[state];
    this.dataset.state = state;
    this._dot.style.background = colour;
    if (this._text.textContent !== text) this._text.textContent = text;
    this.title = state === "live"
      ? `${transport}${transportReason ? ` (${transportReason})` : ""}`
      : lastError?.message || "";
  }
}

if (!customElements.get("push-status")) customElements.define("push-status", PushStatus);
