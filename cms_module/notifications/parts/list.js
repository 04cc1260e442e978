/**
 * All items, one below the other.
 *
 * Part of notifications.js. Needs words.js and elements.js; a view of an inbox.
 */
"use strict";

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
