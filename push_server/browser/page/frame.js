/**
 * The hidden frame of the push server in this page, and the way to talk to it.
 *
 * Rules that hold in this file:
 * - Only a document of the push server is given the port: messages go to its origin, never to any.
 * - A frame that does not answer is taken out and put in again later: browsers fire `load` for
 *   their error pages, too, or in Firefox nothing at all.
 *
 * Part of push.js. Needs errors.js.
 */
"use strict";

/** The frame has to load in this time, in later attempts in up to three times as long, and then
 * to answer in that; else the server is away, or refuses this site. */
const LOAD_TIMEOUT = 10000;
const ANSWER_TIMEOUT = 3000;
/** A goodbye has to be read before the frame goes. */
const GOODBYE = 100;

class PushFrame {
  /**
   * @param {URL} server
   * @param {{take: (messages: any[]) => void, silent: (message: string) => void}} house is given
   *   what the frame says, and told when it says nothing
   */
  constructor(server, house) {
    this.server = server;
    this.house = house;
    /** @type {MessagePort | null} */
    this.port = null;
    /** @type {HTMLIFrameElement | null} */
    this.element = null;
    /** Whether it was told what this page wants. */
    this.started = false;
    this.attempt = 0;
    /** @type {any} */
    this.timer = 0;
  }

  open() {
    const frame = document.createElement("iframe");
    frame.src = new URL("frame", this.server.href.replace(/\/?$/, "/")).href;
    frame.title = "Live updates";
    frame.tabIndex = -1;
    frame.setAttribute("aria-hidden", "true");
    // Inside the viewport and displayed: browsers slow down frames that are neither.
    Object.assign(frame.style, { position: "fixed", left: "0", bottom: "0", width: "1px",
                                 height: "1px", border: "0", opacity: "0",
                                 pointerEvents: "none" });
    frame.addEventListener("load", () => this.meet(frame));
    this.element = frame;
    document.body.append(frame);
    this.give(LOAD_TIMEOUT * Math.min(this.attempt + 1, 3));
  }

  /** @param {number} time */
  give(time) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.silent(), time);
  }

  /** A document was loaded into the frame: ours, a newer one of ours, or an error page. */
  meet(/** @type {HTMLIFrameElement} */ frame) {
    if (frame !== this.element) return;
    this.port?.close();
    this.started = false;
    this.give(ANSWER_TIMEOUT);
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    port1.onmessage = ({ data }) => this.house.take(data);
    frame.contentWindow?.postMessage({ push: "connect" }, this.server.origin, [port2]);
  }

  silent() {
    this.house.silent("The frame did not answer: the push server is away, or it does not know " +
      `the origin ${location.origin}.`);
    this.drop();
    this.attempt += 1;
    this.timer = setTimeout(() => this.open(), backoff(this.attempt));
  }

  /** It has answered: tell it what this page wants. @param {object} wish */
  start(wish) {
    clearTimeout(this.timer);
    this.attempt = 0;
    this.started = true;
    this.post({ type: "start", ...wish });
  }

  /** Tell it something; what it was never told of comes with `start`. @param {any} message */
  post(message) {
    if (this.started) this.port?.postMessage(message);
  }

  leave() {
    this.post({ type: "close" });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.drop(), GOODBYE);
  }

  drop() {
    clearTimeout(this.timer);
    this.port?.close();
    this.port = null;
    this.element?.remove();
    this.element = null;
    this.started = false;
  }
}

/**
 * Whether it is worth the try that the frame calls this page directly. The proof is the call.
 * @param {string} domain
 */
function shareDomain(domain) {
  if (!domain || window.originAgentCluster === true) return false;
  try {
    document.domain = domain;
    return true;
  } catch {
    return false;
  }
}

/**
 * Call back once the page is loaded and opened: one that the browser makes in advance may never
 * be opened, and its frames are not loaded until it is.
 * @param {() => void} work
 */
function whenOpened(work) {
  const again = () => whenOpened(work);
  if (/** @type {any} */ (document).prerendering) {
    document.addEventListener("prerenderingchange", again, { once: true });
  } else if (document.readyState !== "complete") {
    window.addEventListener("load", work, { once: true });
  } else {
    work();
  }
}
