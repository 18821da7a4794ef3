/** What gets through to the service and back: how long a poll may park, and how much an answer may hold. */

import { elapsed } from "./times.js";

/** @typedef {import("./poll.js").Poll} Poll */

export const LONGEST_WAIT = 28; // seconds; the server parks no poll for longer
export const CUT = 1_000; // ms; a poll that breaks after it parked for so long was cut, perhaps by something impatient
const FORGET_CUT = 600_000; // and perhaps was not: a poll parks for its whole time again after ten minutes
const FIRST_LIMIT = 10; // messages: on a slow line the first answer must not take minutes
const FAST = 1_000; // ms; a full answer that takes less may be twice as large
const SLOW = 5_000; // one that takes more should be half as large

export class Line {
  /** Messages to ask for. */
  limit = FIRST_LIMIT;
  /** @type {number | undefined} */
  #shorter;
  #shortened = 0;
  /** How many polls that parked were cut in a row. */
  #cuts = 0;

  /** Seconds that a poll may park; undefined is what the server thinks best. Whole ones, as Prefer has them. */
  wait(/** @type {number} */ longest) {
    if (elapsed(this.#shortened) > FORGET_CUT) this.#shorter = undefined;
    return this.#shorter ?? (longest < Infinity ? Math.min(Math.ceil(longest), LONGEST_WAIT) : undefined);
  }

  #shorten(/** @type {number} */ seconds) {
    this.#shorter = Math.max(1, Math.floor(seconds));
    this.#shortened = performance.now();
  }

  /** An answer with `count` messages has come. */
  carried(/** @type {Poll} */ { wait, begun, limit, most }, /** @type {number} */ count) {
    if (wait !== 0) this.#cuts = 0;
    const took = elapsed(begun);
    if (took > SLOW) this.#halve(limit);
    else if (took < FAST && count >= limit) this.limit = Math.max(this.limit, Math.min(most, limit * 2));
  }

  #halve(/** @type {number} */ limit) {
    this.limit = Math.max(1, limit >> 1);
  }

  /**
   * Nothing has come, or only a part. Returns whether that means nothing yet: something in between may have cut a poll
   * because it parked for long. Once this may happen, twice it is a habit, and three times a fault.
   */
  broke(/** @type {Poll} */ { wait = LONGEST_WAIT, sent, begun, silent, limit }) {
    if (begun) this.#halve(limit);
    if (begun || !wait || !sent) return false;
    if (silent) {
      this.#shorten(wait / 2);
      return false;
    }
    const parked = elapsed(sent);
    if (parked < CUT) return false;
    this.#cuts += 1;
    // Browsers ask a second time by themselves where a connection breaks: so half of the wait may be too long, too.
    if (this.#cuts > 1) this.#shorten(Math.min((parked / 1_000) * 0.75, wait / 2));
    return this.#cuts < 3;
  }
}
