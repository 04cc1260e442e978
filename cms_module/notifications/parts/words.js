/**
 * What is said, in the language of the page.
 *
 * Part of notifications.js. Needs nothing.
 */
"use strict";

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
