/**
 * A bell with a counter, the list behind it, and a note in the corner when something comes.
 *
 *     Notifications.mount({
 *       push: Push.connect({…}),                    // or nothing: it shows what `load` brings
 *       channel: "user:42",
 *       bell: document.getElementById("bell"),      // what is in there is replaced by the bell
 *       list: document.getElementById("all"),       // optional: the same list, always open
 *       load: () => fetch("/notifications.json").then((answer) => answer.json()),
 *       markSeen: (seen) => fetch(`/notifications/seen/${seen}`, { method: "POST" }),
 *     });
 *
 * `load` brings {items: [{id, title, text, sender, at, url}], seen}: `id` is a number that grows,
 * `at` is in unix seconds, `seen` the highest id that the user has looked at. On the channel it
 * understands {type: "notification", …item} and {type: "seen", seen}, the latter so that the
 * counters of all tabs agree; everything else on the channel is left to others.
 *
 * Rules that hold in this file:
 * - Text is only ever set as text, never as HTML. An address is followed only inside this site.
 * - No item is shown twice, however often it arrives. A page may mount several bells and lists:
 *   those of one channel show the same, ask the site once, and raise one note.
 * - Nothing that somebody is reading, or has focused, is taken away meanwhile.
 * - A list that the site has rendered, as `ul.pn-list` in `list`, stays until `load` has answered.
 * - Looks are decided in notifications.css, by variables; no style is set from here, so that any
 *   Content-Security-Policy will do. Words are in `WORDS`; `words` replaces them.
 *
 * A classic script without dependencies: `Notifications` is its only name. tools/copies makes it of
 * the files in cms_module/notifications/parts.
 */
"use strict";

/** @type {Map<string, Inbox>} by channel */
const inboxes = new Map();

/** Show a channel's notifications. What is not about this place counts in the first call only. */
function mount(/** @type {Options} */ options) {
  const inbox = inboxes.get(options.channel) || new Inbox(options);
  inboxes.set(options.channel, inbox);
  const { bell, list, all } = options;
  const words = { ...WORDS, ...options.words };
  for (const place of [bell, list]) place?.classList.add("pn");
  if (bell) inbox.views.add(new Bell(inbox, bell, words, all));
  if (list) inbox.views.add(new List(inbox, list, words));
  inbox.draw();
  return { reload: () => inbox.reload(), unread: () => inbox.unread().length };
}

window.Notifications = Object.freeze({ mount, ago });
