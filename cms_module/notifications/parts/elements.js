/**
 * Elements of the page, made of text and attributes alone.
 *
 * Part of notifications.js. Needs nothing.
 */
"use strict";

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
