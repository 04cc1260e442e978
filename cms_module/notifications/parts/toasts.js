/**
 * What comes up when something arrives: for the eye, and for the ear.
 *
 * Part of notifications.js. Needs words.js and elements.js, and the inbox that made it.
 */
"use strict";

const TOASTS = 3;
const TOAST_MS = 8000;
/** What comes within this time is announced in one sentence. */
const ANNOUNCE_MS = 500;

/** Notes in the corner, and what is read out to those who do not see them. */
class Toasts {
  /** @param {Inbox} inbox @param {Record<string, Word>} words */
  constructor(inbox, words) {
    this.inbox = inbox;
    this.words = words;
    const label = say(words.title);
    this.corner = make("div", { class: "pn pn-toasts", role: "region", "aria-label": label });
    // Apart from the notes, so that no button is read out, and nothing twice.
    this.voice = make("div", { class: "pn-voice", role: "status" });
    /** @type {Item[]} */
    this.unsaid = [];
    document.body.append(this.corner, this.voice);
  }

  /** @param {Item} item */
  announce(item) {
    this.unsaid.push(item);
    if (this.unsaid.length > 1) return;
    this.voice.textContent = "";
    setTimeout(() => {
      const count = this.unsaid.length;
      const title = [item.title, item.text].filter(Boolean).join(". ");
      const { arrived, several } = this.words;
      this.unsaid = [];
      this.voice.textContent = count > 1 ? say(several, { count }) : say(arrived, { title });
    }, ANNOUNCE_MS);
  }

  /** @param {Item} item */
  raise(item) {
    const close = make("button", {
      type: "button", class: "pn-close", "aria-label": say(this.words.close),
    }, "×");
    const text = telling(item, this.inbox.link(item), "pn-told");
    const note = make("div", { class: "pn-toast" }, text, close);
    close.addEventListener("click", () => this.drop(note));
    note.addEventListener("keydown", ({ key }) => key === "Escape" && this.drop(note));
    const fade = () => {
      if (note.isConnected && (inUse(note) || document.hidden)) setTimeout(fade, TOAST_MS);
      else note.remove();
    };
    setTimeout(fade, TOAST_MS);
    const others = [...this.corner.children].filter((other) => !inUse(other));
    if (this.corner.children.length >= TOASTS) others[0]?.remove();
    this.corner.append(note);
  }

  /** Take a note away on demand; the focus goes to the next one, or to the bell. */
  drop(note) {
    const next = note.nextElementSibling || note.previousElementSibling;
    const bell = [...this.inbox.views].find((view) => view instanceof Bell);
    const heir = next ? next.querySelector("button") : bell?.button;
    if (note.contains(document.activeElement)) heir?.focus();
    note.remove();
  }

  /** They have been seen elsewhere. */
  clear() {
    for (const note of [...this.corner.children]) if (!inUse(note)) note.remove();
  }
}
