/**
 * A bell with a counter, the list behind it, and a note in the corner when something comes.
 *
 *   Notifications.mount({
 *     push: Push.connect({…}),            // or nothing: then it shows what `load` brings
 *     channel: "user:42",
 *     bell: document.getElementById("bell"),
 *     list: document.getElementById("all"),          // optional: the same list, always open
 *     load: () => fetch("/notifications.json").then((answer) => answer.json()),
 *     markSeen: () => fetch("/notifications/seen", {method: "POST"}),
 *   });
 *
 * `load` brings {items: [{id, title, text, sender, at, url}], seen}: `id` is a number that grows,
 * `at` is in unix seconds, `seen` the highest id that the user has looked at. On the channel it
 * understands {type: "notification", …item} and {type: "seen", seen}, the latter so that the
 * counters of all tabs agree; everything else on the channel is left to others.
 *
 * Rules. Text is only ever set as text, never as HTML; an address is followed only inside this
 * site. No item is shown twice, however often it arrives. Looks are decided in notifications.css,
 * by variables; words are in `words`, so that they can be translated.
 *
 * A classic script without dependencies: `Notifications` is its only name.
 */
"use strict";

const Notifications = (() => {
  const WORDS = {
    title: "Notifications",
    none: "Nothing yet. What is new appears here by itself.",
    count: (/** @type {number} */ unread) =>
      unread ? `Notifications, ${unread} new` : "Notifications, none new",
    close: "Dismiss",
    fresh: "New",
    by: (/** @type {string} */ sender) => `from ${sender}`,
  };
  const KEPT = 50;
  const TOASTS = 3;
  const TOAST_MS = 8000;
  const BELL =
    "M12 4a5 5 0 0 0-5 5v3.5L5 16h14l-2-3.5V9a5 5 0 0 0-5-5zM10 19a2 2 0 0 0 4 0";

  /**
   * @param {string} tag
   * @param {Record<string, string>} attributes
   * @param {(Node|string)[]} children
   */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function bellIcon() {
    const space = "http://www.w3.org/2000/svg";
    const icon = document.createElementNS(space, "svg");
    icon.setAttribute("viewBox", "0 0 24 24");
    icon.setAttribute("aria-hidden", "true");
    const line = document.createElementNS(space, "path");
    line.setAttribute("d", BELL);
    icon.append(line);
    return icon;
  }

  /** An address inside this site, or none: news must not lead people elsewhere. */
  function inside(url) {
    try {
      const target = new URL(String(url || "/"), location.href);
      return target.origin === location.origin ? target.pathname + target.search : "/";
    } catch {
      return "/";
    }
  }

  /** "3 minutes ago", in the language of the page. @param {number} at unix seconds */
  function ago(at) {
    const seconds = Math.round(at - Date.now() / 1000);
    const words = new Intl.RelativeTimeFormat(document.documentElement.lang || "en", {
      numeric: "auto",
    });
    for (const [unit, size] of /** @type {const} */ ([["day", 86400], ["hour", 3600], ["minute", 60]])) {
      if (Math.abs(seconds) >= size) return words.format(Math.trunc(seconds / size), unit);
    }
    return words.format(0, "second");
  }

  class Center {
    constructor(options) {
      this.options = options;
      this.words = { ...WORDS, ...options.words };
      /** @type {Map<number, object>} by id, so that nothing is there twice */
      this.items = new Map();
      this.seen = 0;
      /** Ids that were new when the panel was opened keep their mark until it is closed. */
      this.highlighted = new Set();
      this.plainTitle = document.title;
      this.build();
      this.listen();
      this.reload();
      setInterval(() => this.draw(), 60000);
    }

    build() {
      const { bell } = this.options;
      this.counter = make("span", { class: "pn-counter", hidden: "" });
      this.button = make(
        "button",
        { type: "button", class: "pn-bell", "aria-expanded": "false", "aria-controls": "pn-panel" },
        bellIcon(),
        this.counter,
      );
      this.panelList = make("ul", { class: "pn-list" });
      this.panel = make(
        "div",
        { id: "pn-panel", class: "pn-panel", role: "region", "aria-label": this.words.title, tabindex: "-1", hidden: "" },
        make("h2", {}, this.words.title),
        this.panelList,
      );
      bell.classList.add("pn");
      bell.append(this.button, this.panel);
      this.lists = [this.panelList];
      if (this.options.list) {
        const open = make("ul", { class: "pn-list" });
        this.options.list.classList.add("pn");
        this.options.list.append(open);
        this.lists.push(open);
      }
      this.toasts = make("div", { class: "pn pn-toasts", role: "status", "aria-live": "polite" });
      document.body.append(this.toasts);
      this.draw();
    }

    listen() {
      this.button.addEventListener("click", () => this.toggle());
      this.options.bell.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && !this.panel.hidden) {
          this.toggle(false);
          this.button.focus();
        }
      });
      document.addEventListener("click", (event) => {
        if (!this.options.bell.contains(event.target)) this.toggle(false);
      });
      const { push, channel } = this.options;
      if (!push) return;
      push.subscribe(channel, (data) => this.take(data));
      // What came before this page was listening, and what could not be replayed, is at the site.
      push.on("subscribed", () => this.reload());
      push.on("reset", () => this.reload());
    }

    async reload() {
      let state;
      try {
        state = await this.options.load();
      } catch {
        return; // The site is away; what is shown stays, and the next event tries again.
      }
      for (const item of state.items) this.items.set(item.id, item);
      this.seen = Math.max(this.seen, state.seen);
      this.draw();
    }

    take(data) {
      if (data?.type === "seen") {
        this.seen = Math.max(this.seen, Number(data.seen) || 0);
        this.dropToasts();
        this.draw();
      } else if (data?.type === "notification" && !this.items.has(data.id)) {
        this.items.set(data.id, data);
        if (this.panel.hidden) {
          this.toast(data);
        } else {
          this.highlighted.add(data.id);
          this.markSeen();
        }
        this.draw();
      }
    }

    toggle(open = this.panel.hidden) {
      if (open === !this.panel.hidden) return;
      this.panel.hidden = !open;
      this.button.setAttribute("aria-expanded", String(open));
      this.highlighted = new Set(open ? this.unread().map((item) => item.id) : []);
      if (open) {
        this.dropToasts();
        this.panel.focus({ preventScroll: true });
        if (this.highlighted.size) this.markSeen();
      }
      this.draw();
    }

    markSeen() {
      this.seen = Math.max(0, ...this.items.keys());
      // If the site does not hear of it, the bell shows the number again on the next page.
      Promise.resolve(this.options.markSeen()).catch(() => {});
    }

    unread() {
      return [...this.items.values()].filter((item) => item.id > this.seen);
    }

    draw() {
      const sorted = [...this.items.values()].sort((one, other) => other.id - one.id);
      for (const old of sorted.splice(KEPT)) this.items.delete(old.id);
      const unread = this.unread().length;
      this.counter.hidden = !unread;
      this.counter.textContent = unread > 99 ? "99+" : String(unread);
      this.button.setAttribute("aria-label", this.words.count(unread));
      document.title = unread ? `(${unread}) ${this.plainTitle}` : this.plainTitle;
      for (const list of this.lists) {
        const lines = sorted.map((item) => this.line(item));
        list.replaceChildren(...(lines.length ? lines : [make("li", { class: "pn-none" }, this.words.none)]));
      }
    }

    line(item) {
      const fresh = item.id > this.seen || this.highlighted.has(item.id);
      const meta = [item.sender ? this.words.by(item.sender) : "", ago(item.at)];
      const link = make(
        "a",
        { href: inside(item.url), class: "pn-item" },
        make("strong", {}, String(item.title)),
        ...(item.text ? [make("span", {}, String(item.text))] : []),
        make("small", {}, meta.filter(Boolean).join(" · ")),
      );
      if (fresh) link.prepend(make("span", { class: "pn-fresh" }, this.words.fresh));
      return make("li", fresh ? { class: "pn-new" } : {}, link);
    }

    toast(item) {
      const close = make("button", { type: "button", class: "pn-close", "aria-label": this.words.close }, "×");
      const note = make(
        "div",
        { class: "pn-toast" },
        make(
          "a",
          { href: inside(item.url) },
          make("strong", {}, String(item.title)),
          ...(item.text ? [make("span", {}, String(item.text))] : []),
        ),
        close,
      );
      let timer = 0;
      const leave = () => note.remove();
      const wait = () => {
        clearTimeout(timer);
        timer = setTimeout(leave, TOAST_MS);
      };
      // Nobody should lose what he is just reading.
      for (const name of ["pointerenter", "focusin"]) note.addEventListener(name, () => clearTimeout(timer));
      for (const name of ["pointerleave", "focusout"]) note.addEventListener(name, wait);
      close.addEventListener("click", leave);
      note.addEventListener("keydown", (event) => event.key === "Escape" && leave());
      while (this.toasts.children.length >= TOASTS) this.toasts.firstElementChild.remove();
      this.toasts.append(note);
      wait();
    }

    dropToasts() {
      this.toasts.replaceChildren();
    }
  }

  return { mount: (options) => new Center(options), ago };
})();
