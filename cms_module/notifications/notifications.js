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

(() => {
  /**
   * @typedef {{id: number, title: string, text?: string, sender?: string, at: number,
   *   url?: string}} Item
   * @typedef {{items: Item[], seen: number}} State
   * @typedef {string | Record<string, string> | ((value: any) => string)} Word text in which
   *   `{count}`, `{sender}` and `{title}` are filled in; one for each plural category where there
   *   is a number; or a function of the one value
   * @typedef {object} Options
   * @property {any} [push] a connection made by `Push.connect`
   * @property {string} channel
   * @property {Element} [bell]
   * @property {Element} [list]
   * @property {() => Promise<State>} load
   * @property {(seen: number) => unknown} markSeen
   * @property {State} [state] what `load` would bring, if the page has it already
   * @property {boolean} [fresh] nothing can have come between that state and the `since` that
   *   `push` was given: the site need not be asked when the channel is subscribed
   * @property {string[]} [origins] other origins of this site whose addresses may be followed
   * @property {string} [all] address of a page with all of them, linked below the bell's list
   * @property {Record<string, Word>} [words] what replaces some of `WORDS`
   */

  /** @type {Record<string, Word>} */
  const WORDS = {
    title: "Notifications",
    none: "Nothing yet. What is new appears here by itself.",
    count: { zero: "Notifications, none new", other: "Notifications, {count} new" },
    arrived: "New notification: {title}",
    several: { other: "{count} new notifications" },
    close: "Dismiss",
    fresh: "New",
    by: "from {sender}",
    all: "All notifications",
  };

  const UNITS = /** @type {const} */ ([
    ["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60],
  ]);

  /** What belongs to the language of the page, or to English if that is none that exists. */
  function inLanguage(make) {
    try {
      return make(document.documentElement.lang.replace("_", "-") || "en");
    } catch {
      return make("en");
    }
  }
  const relative = inLanguage((tag) => new Intl.RelativeTimeFormat(tag, { numeric: "auto" }));
  const plurals = inLanguage((tag) => new Intl.PluralRules(tag));

  /** "3 minutes ago", in the language of the page. @param {number} at unix seconds */
  function ago(at) {
    const seconds = Math.round(at - Date.now() / 1000);
    for (const [unit, size] of UNITS) {
      if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
    }
    return relative.format(0, "second");
  }

  /** @param {Word} word @param {{count?: number, sender?: string, title?: string}} values */
  function say(word, values = {}) {
    if (typeof word === "function") return word(Object.values(values)[0]);
    const { count = 0 } = values;
    const category = count === 0 && word.zero ? "zero" : plurals.select(count);
    const text = typeof word === "string" ? word : word[category] || word.other;
    return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
  }

  const BELL = "M12 4a5 5 0 0 0-5 5v3.5L5 16h14l-2-3.5V9a5 5 0 0 0-5-5zM10 19a2 2 0 0 0 4 0";

  /**
   * @param {string} tag
   * @param {Record<string, string>} attributes
   * @param {(Node | string)[]} children
   */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
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
  function inside(url, origins = []) {
    try {
      const target = new URL(url, location.href);
      return url && [location.origin, ...origins].includes(target.origin) ? target.href : "";
    } catch {
      return "";
    }
  }

  /** What an item says, as a link if it leads somewhere. @param {string} href */
  function telling(item, href, name, ...more) {
    return make(
      href ? "a" : "div",
      href ? { href, class: name } : { class: name },
      // It may be written from right to left on a page that goes from left to right.
      make("strong", { dir: "auto" }, String(item.title)),
      ...(item.text ? [make("span", { dir: "auto" }, String(item.text))] : []),
      ...more,
    );
  }

  /** Whether somebody has this under the pointer or the focus. @param {Element} element */
  const inUse = (element) => element.matches(":hover, :focus-within");

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

  const KEPT = 50;
  /** If push has not subscribed in this time, the site is asked without waiting for it. */
  const SUBSCRIBE_MS = 2000;
  const MINUTE = 60000;

  /** What stands in front of the page's own title because of us. */
  let counted = "";

  /** What one channel has brought, and what shows it. */
  class Inbox {
    /** @param {Options} options */
    constructor(options) {
      this.options = options;
      /** @type {Map<number, Item>} by id, so that nothing is there twice */
      this.items = new Map();
      /** @type {Item[]} the newest first */
      this.sorted = [];
      this.seen = 0;
      /** Whether the site has said what there is. */
      this.known = false;
      this.wanted = false;
      /** @type {Promise<void> | null} */
      this.loading = null;
      /** @type {Set<Bell | List>} */
      this.views = new Set();
      this.toasts = new Toasts(this, { ...WORDS, ...options.words });
      if (options.state) this.learn(options.state);
      this.listen();
      setInterval(() => this.draw(), MINUTE);
    }

    listen() {
      const { push, channel, state } = this.options;
      if (!push && !state) this.reload();
      if (!push) return;
      let { fresh } = this.options;
      // What came before this page was listening, and what could not be replayed, is at the
      // site: it is asked then, and not before unless that takes too long.
      const late = setTimeout(() => state || this.reload(), SUBSCRIBE_MS);
      const onNews = (event) => (channels) => {
        if (!channels.includes(channel)) return;
        clearTimeout(late);
        if (!fresh || event === "reset") this.reload();
        fresh = false;
      };
      push.subscribe(channel, (data) => this.take(data));
      for (const event of ["subscribed", "reset"]) push.on(event, onNews(event));
    }

    /** Ask the site what there is; once more if that was wanted while it was being asked. */
    reload() {
      this.wanted = true;
      this.loading ??= this.ask().finally(() => {
        this.loading = null;
      });
      return this.loading;
    }

    async ask() {
      while (this.wanted) {
        this.wanted = false;
        const before = [...this.items.keys()];
        try {
          const state = await this.options.load();
          if (!Array.isArray(state?.items)) throw new TypeError("These are no notifications.");
          // What is gone at the site goes here, too, unless it came after the question.
          for (const id of before) this.items.delete(id);
          this.learn(state);
          this.draw();
        } catch {
          // The site is away; what is shown stays, and the next event tries again.
        }
      }
    }

    /** @param {State} state */
    learn({ items, seen }) {
      for (const item of items) this.keep(item);
      this.seen = Math.max(this.seen, seen);
      this.known = true;
    }

    /** @param {Item} item where it does not say when it was, that is now */
    keep(item) {
      const isDated = !Number.isNaN(new Date(item.at * 1000).getTime());
      this.items.set(item.id, isDated ? item : { ...item, at: Date.now() / 1000 });
    }

    /** @param {any} data what came on the channel */
    take(data) {
      if (data?.type === "seen") {
        this.seen = Math.max(this.seen, Number(data.seen) || 0);
        this.toasts.clear();
        this.draw();
      } else if (data?.type === "notification" && Number.isSafeInteger(data.id)) {
        if (this.items.has(data.id)) return;
        this.keep(data);
        if (data.id > this.seen) this.tell(data);
        this.draw();
      }
    }

    /** @param {Item} item */
    tell(item) {
      this.toasts.announce(item);
      const open = [...this.views].filter((view) => view.isLookedAt());
      for (const view of open) view.look();
      if (!open.length) this.toasts.raise(item);
    }

    /** @param {Item} item */
    link(item) {
      return inside(item.url, this.options.origins);
    }

    unread() {
      return [...this.items.values()].filter((item) => item.id > this.seen);
    }

    markSeen() {
      if (!this.unread().length) return;
      this.seen = Math.max(...this.items.keys());
      // If the site does not hear of it, the bell shows the number again on the next page.
      Promise.resolve(this.options.markSeen(this.seen)).catch(() => {});
    }

    draw() {
      this.sorted = [...this.items.values()].sort((one, other) => other.id - one.id);
      for (const old of this.sorted.splice(KEPT)) this.items.delete(old.id);
      const unread = this.unread().length;
      const { title } = document;
      const plain = title.startsWith(counted) ? title.slice(counted.length) : title;
      counted = unread ? `(${unread}) ` : "";
      document.title = counted + plain;
      for (const view of this.views) view.draw();
    }
  }

  /** All items in a place of the page, the newest on top. */
  class List {
    /**
     * @param {Inbox} inbox
     * @param {Element} place
     * @param {Record<string, Word>} words
     */
    constructor(inbox, place, words) {
      this.inbox = inbox;
      this.words = words;
      /** Ids that are marked as new although they have been seen. @type {Set<number>} */
      this.highlighted = new Set();
      this.element = place.querySelector("ul.pn-list") || make("ul", { class: "pn-list" });
      // Without a role, VoiceOver does not count a list without bullets as one.
      this.element.setAttribute("role", "list");
      if (!this.element.parentNode) place.append(this.element);
      /** @type {Map<number, {says: string, row: Element, mark: HTMLElement, time: Element}>} */
      this.lines = new Map();
      this.none = make("li", { class: "pn-none" }, say(words.none));
    }

    /** A list that is always open says nothing about who looks at it. */
    isLookedAt() {
      return false;
    }

    look() {}

    draw() {
      const { items, sorted, known } = this.inbox;
      const rows = sorted.map((item) => this.line(item));
      for (const id of this.lines.keys()) if (!items.has(id)) this.lines.delete(id);
      if (!rows.length && known) rows.push(this.none);
      for (const row of [...this.element.children]) {
        if (known && !rows.includes(row)) row.remove();
      }
      // A row that stands where it belongs is not touched, so that it keeps the focus.
      let next = this.element.firstElementChild;
      for (const row of rows) {
        if (row === next) next = next.nextElementSibling;
        else this.element.insertBefore(row, next);
      }
    }

    /** @param {Item} item */
    line(item) {
      const says = JSON.stringify([item.title, item.text, item.sender, item.url, item.at]);
      if (this.lines.get(item.id)?.says !== says) this.lines.set(item.id, this.write(item, says));
      const { row, mark, time } = this.lines.get(item.id);
      mark.hidden = item.id <= this.inbox.seen && !this.highlighted.has(item.id);
      row.classList.toggle("pn-new", !mark.hidden);
      const when = ago(item.at);
      if (time.textContent !== when) time.textContent = when;
      return row;
    }

    /** @param {Item} item @param {string} says */
    write(item, says) {
      const { fresh, by } = this.words;
      const mark = make("span", { class: "pn-fresh" }, say(fresh));
      const time = make("time", { datetime: new Date(item.at * 1000).toISOString() });
      const sender = item.sender ? [say(by, { sender: item.sender }), " · "] : [];
      const small = make("small", {}, ...sender, time);
      const body = telling(item, this.inbox.link(item), "pn-item", small);
      body.prepend(mark);
      return { says, row: make("li", {}, body), mark, time };
    }
  }

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
})();
