/**
 * What there is, wherever it came from: the site, or the channel.
 *
 * Rules that hold in this file:
 * - No item is there twice, however often it arrives.
 * - The site is asked once at a time, and again if something was missed meanwhile.
 *
 * Part of notifications.js. Needs toasts.js. A view has `draw`, `isLookedAt` and `look`.
 */
"use strict";

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
