/**
 * What a page of the site includes: live updates in five lines.
 *
 *     const push = Push.connect({ server: "https://push.example.com", token: "/push/token" });
 *     push.subscribe("node:7", (data, publication) => { … });
 *     push.on("reset", (channels) => location.reload());
 *     push.publish("chat:lobby", { text: "hi" });
 *     document.body.append(push.statusElement());
 *
 * Rules that hold in this file:
 * - The page's own speed comes first: nothing is loaded before the page's `load` event, and
 *   nothing from the push server at all for a visitor without a token.
 * - Whatever arrives is data. It is never evaluated and never becomes HTML; what a callback does
 *   with it is the site's affair, and a callback that throws harms nobody else.
 * - A publication that may have been missed is never passed over: `reset` names its channel.
 *
 * A classic script without dependencies. It needs `frame-src` and `script-src` for the push
 * server in the page's Content-Security-Policy, if it has one, and nothing else. tools/copies
 * makes it of the files in push_server/browser/page.
 */
"use strict";

window.Push = Object.freeze({
  /** @param {Options} options */
  connect: (options) => new Page(options),

  Error: PushError,

  /**
   * Called by the frame, where document.domain allows it. The key was given to the frame alone.
   * @param {string} key
   * @param {string} text
   * @returns {string} the proof asked for, if any
   */
  receive(key, text) {
    const page = instances.get(key);
    const messages = JSON.parse(text);
    if (!page) return "";
    page._takeAll(messages);
    return messages[0]?.type === "proof" ? messages[0].proof : "";
  },
});
