/**
 * The button with the number, and the list that it opens.
 *
 * Part of notifications.js. Needs list.js; a view of an inbox.
 */
"use strict";

let bells = 0;

/** A button with the number of what is new, and a list that it opens. */
class Bell {
  /**
   * @param {Inbox} inbox
   * @param {Element} place
   * @param {Record<string, Word>} words
   * @param {string} [all]
   */
  constructor(inbox, place, words, all) {
    bells += 1;
    const [panel, title] = [`pn-panel-${bells}`, `pn-title-${bells}`];
    this.inbox = inbox;
    this.words = words;
    this.place = place;
    this.counter = make("span", { class: "pn-counter", hidden: "" });
    this.button = make("button", {
      type: "button", class: "pn-bell", "aria-haspopup": "dialog", "aria-expanded": "false",
      "aria-controls": panel,
    }, bellIcon(), this.counter);
    this.panel = make("div", {
      id: panel, class: "pn-panel", role: "dialog", "aria-labelledby": title, tabindex: "-1",
      hidden: "",
    }, make("h2", { id: title }, say(words.title)));
    this.list = new List(inbox, this.panel, words);
    const href = inside(all);
    if (href) this.panel.append(make("a", { class: "pn-all", href }, say(words.all)));
    place.replaceChildren(this.button, this.panel);
    this.listen();
  }

  listen() {
    this.button.addEventListener("click", () => this.toggle(this.panel.hidden));
    this.place.addEventListener("keydown", (event) => this.onKey(event));
    // It lies over the page, so it closes when somebody goes on to what is under it.
    this.place.addEventListener("focusout", ({ relatedTarget }) => {
      if (relatedTarget && !this.place.contains(relatedTarget)) this.toggle(false);
    });
    document.addEventListener("pointerdown", ({ target }) => {
      if (!this.place.contains(target)) this.toggle(false);
    });
    document.addEventListener("visibilitychange", () => {
      if (this.isLookedAt()) this.look();
    });
  }

  onKey(event) {
    if (this.panel.hidden || event.altKey || event.ctrlKey || event.metaKey) return;
    const links = [...this.panel.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const targets = {
      Escape: this.button,
      ArrowDown: links[at + 1] || links.at(-1),
      ArrowUp: links[at - 1] || links[0],
      Home: links[0],
      End: links.at(-1),
    };
    if (!Object.hasOwn(targets, event.key)) return;
    event.preventDefault();
    if (event.key === "Escape") this.toggle(false);
    targets[event.key]?.focus();
  }

  /** @param {boolean} open */
  toggle(open) {
    if (open === !this.panel.hidden) return;
    this.panel.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    this.list.highlighted.clear();
    if (open) {
      this.turn();
      this.panel.focus({ preventScroll: true });
      this.look();
    }
    this.inbox.draw();
  }

  /** Open towards the side where there is room. */
  turn() {
    const { left, right } = this.button.getBoundingClientRect();
    const isLeft = left + right < document.documentElement.clientWidth;
    const fromLeft = getComputedStyle(this.place).direction === "ltr";
    this.panel.classList.toggle("pn-turned", isLeft === fromLeft);
  }

  isLookedAt() {
    return !this.panel.hidden && !document.hidden;
  }

  /** What is there has been seen now; it stays marked until this closes. */
  look() {
    for (const { id } of this.inbox.unread()) this.list.highlighted.add(id);
    this.inbox.toasts.clear();
    this.inbox.markSeen();
    this.draw();
  }

  draw() {
    const count = this.inbox.unread().length;
    this.counter.hidden = !count;
    this.counter.textContent = count > 99 ? "99+" : String(count);
    const label = this.inbox.known ? say(this.words.count, { count }) : say(this.words.title);
    this.button.setAttribute("aria-label", label);
    this.list.draw();
  }
}
