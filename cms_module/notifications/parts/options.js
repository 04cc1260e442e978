/**
 * What a page hands over: its options, and what they bring.
 *
 * Part of notifications.js. Needs nothing.
 */
"use strict";

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
