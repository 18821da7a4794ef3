/** One poll: whom it asks for, and from where. */

import { least, number } from "./cursors.js";
import { LONGEST_WAIT } from "./line.js";
import { LATE } from "./times.js";

/** @typedef {import("./line.js").Line} Line */
/** @typedef {import("./subscription.js").Place} Place */

const ITEMS = 100; // topics and patterns that one poll may ask for,
const SEGMENTS = 400; // and segments in its patterns
export const INTERRUPTED = new Error("interrupted");

export class Poll {
  control = new AbortController();
  right = (/** @type {any} */ { messages, cursor }) => Array.isArray(messages) && typeof cursor === "string";
  /** @type {string | undefined} */
  token;
  /** @type {number | undefined} */
  sent;
  /** @type {number | undefined} */
  begun;
  /** Whether its answer was given up. */
  silent = false;
  /** Whether headers say where it goes on from. */
  headers = true;

  /** @param {Place[]} places  @param {Line} line  @param {boolean} parks  @param {() => void} slept */
  constructor(places, line, parks, slept) {
    /** Up to where each of them has read. */
    this.asked = new Map(places.map((place) => [place, place.read]));
    this.items = new Set(places.flatMap(({ items }) => items));
    this.after = least(places);
    /** Seconds; undefined is what the server thinks best. */
    this.wait = parks ? line.wait(Math.min(...places.map(({ wait }) => wait))) : 0;
    /** Messages that those who are asked for want, and that it asks for. */
    this.most = Math.min(...places.map(({ limit }) => limit));
    this.limit = Math.min(line.limit, this.most);
    this.patience = (this.wait ?? LONGEST_WAIT) * 1_000 + LATE;
    this.late = (/** @type {boolean} */ asleep) => {
      this.silent = true;
      if (asleep) slept();
      else this.control.abort(new Error("no answer in time"));
    };
  }

  /** Whether it is for `place` too, or can be. */
  joined(/** @type {Place} */ place) {
    if (this.asked.has(place)) return true;
    if (!place.items.every((item) => this.items.has(item)) || !(number(place.read) >= number(this.after))) return false;
    this.asked.set(place, place.read);
    return true;
  }
}

/** What makes one poll after the other, as long as there is something to ask for. */
export class Loop {
  runs = false;
  /** @type {Poll | undefined} */
  poll;
  /** How many answers in a row came at once with nothing new. */
  idle = 0;
  /** @type {Promise<unknown> | undefined} */
  paused;
  wake = () => {};

  /** Ends the poll or the pause under way. */
  interrupt() {
    this.poll?.control.abort(INTERRUPTED);
    this.wake();
  }
}

/** Makes them ask at once, before they wait again. */
export function behind(/** @type {Iterable<Place>} */ places) {
  for (const place of places) place.fresh = false;
}

/** Makes each ask for itself, because what was said to several concerns one of them. */
export function alone(/** @type {Iterable<Place>} */ places) {
  for (const place of places) place.alone = !(place.fresh = false);
}

/** `places` in lists that one poll may ask for. */
export function packed(/** @type {Place[]} */ places) {
  /** @type {Place[][]} */
  const lists = [];
  for (const place of places) {
    const list = lists.find((each) => fit([...each, place]));
    if (list) list.push(place);
    else lists.push([place]);
  }
  return lists;
}

/** Whether one poll may ask for all of `places`. */
function fit(/** @type {Place[]} */ places) {
  const items = [...new Set(places.flatMap((place) => place.items))];
  const segments = items.filter((item) => item.includes("*")).join("/").split("/");
  return items.length <= ITEMS && segments.length <= SEGMENTS;
}
