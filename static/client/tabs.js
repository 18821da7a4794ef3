/**
 * Tabs of one user that have one poll. One of them leads: it holds a lock, polls for all, and passes on each answer with
 * the cursor that it goes on from. All have cursors of their own, and take only what goes on from there. So nothing is
 * lost or repeated where none leads, or two do, or a tab has slept: only requests are.
 *
 * Only pages that share their poll load this module.
 */

import { least, number } from "./cursors.js";
import { elapsed } from "./times.js";

/** @typedef {import("./poll.js").Poll} Poll */
/** @typedef {import("./polls.js").Polls} Polls */
/** @typedef {import("./subscription.js").Place} Place */

const MUTE = 45_000; // ms; a tab that leads others and says nothing for so long has stopped
const WATCH = 5_000; // which they look for so often
const TELL_AGAIN = 60_000; // a tab tells what it follows so often,
const GONE = 200_000; // and is gone if it does not for so long
const TURN = 10_000; // and one that catches up for longer does not hold up the others

export class Tabs {
  leads = false;
  /** Of the lock and the channel of the tabs that have one poll. */
  #name = "";
  #polls;
  #share;
  #id = crypto.randomUUID();
  /** @type {BroadcastChannel | undefined} */
  #channel;
  #life = new AbortController();
  /** What the other tabs follow, and when they said so. @type {Map<string, { place: any, at: number }>} */
  #others = new Map();
  /** What this one said that it follows, and when. */
  #told = "";
  #toldAt = 0;
  #heardAt = 0;

  /** @param {Polls} polls  @param {boolean | string | undefined} share */
  constructor(polls, share) {
    this.#polls = polls;
    this.#share = share;
  }

  /** Joins the tabs that show the same service to the same user, whose `token` it is. */
  join(token = "") {
    const name = `${this.#polls.url(["_"])} ${this.#share} ${user(token)}`;
    if (this.#name === name) return;
    this.part();
    this.#name = name;
    this.#life = new AbortController();
    const { signal } = this.#life;
    const channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }) => {
      if (data.tab) return this.#follows(data);
      this.#heardAt = performance.now();
      // It must know all that this one follows.
      if (data.leads || !this.#hear(data)) this.#told = "";
      this.#polls.changed();
    };
    this.#channel = channel;
    // Only a tab that is looked at takes the lead from one that has stopped: others may have stopped, too.
    const timer = setInterval(() => {
      const mute = elapsed(this.#heardAt) > MUTE && globalThis.document?.visibilityState === "visible";
      if (!this.leads && mute) this.#lead({ steal: true });
    }, WATCH);
    signal.addEventListener("abort", () => {
      clearInterval(timer);
      channel.close();
    });
    this.#lead({ signal });
  }

  /** Leaves them. */
  part() {
    this.say({ tab: this.#id, items: [] });
    this.#life.abort();
    this.#channel = undefined;
    this.#name = "";
    this.leads = false;
    this.#others.clear();
  }

  /** Leads as soon as no other tab does, until this one parts or another takes the lead. */
  async #lead(/** @type {LockOptions} */ options) {
    const { signal } = this.#life;
    this.#heardAt = performance.now();
    /** @type {any} */
    let lost;
    await navigator.locks
      .request(this.#name, options, () => {
        if (signal.aborted) return;
        this.leads = true;
        this.say({ leads: true });
        this.#polls.changed();
        return new Promise((resolve) => signal.addEventListener("abort", resolve));
      })
      .catch((error) => (lost = error)); // parted, or another tab has the lead now
    if (signal.aborted) return;
    this.leads = lost?.name !== "AbortError"; // where locks are forbidden, as in a sandbox, each leads itself
    this.#told = "";
    this.#polls.changed();
    if (!this.leads && !options.steal) this.#lead(options);
  }

  /**
   * Does `work`, a request beside the poll, when no other tab is at one: together the tabs have two at the most. One
   * that has stopped meanwhile is not waited for. `work` must not reject.
   *
   * @param {() => Promise<void>} work
   */
  async turn(work) {
    if (!this.#name) return work();
    const options = { signal: AbortSignal.timeout(TURN) };
    await navigator.locks.request(`${this.#name} behind`, options, work).catch(work);
  }

  #follows(/** @type {any} */ { tab, items, read }) {
    if (items.length) {
      const nothing = () => false;
      const take = (/** @type {any} */ _, /** @type {string} */ cursor) => void (place.read = cursor);
      const always = { queue: [], pattern: /^$/, begin: {}, waits: true, fresh: true, limit: 100, wait: Infinity };
      /** @type {any} */
      const place = { ...always, items, read, take, end: nothing, tell: nothing };
      this.#others.set(tab, { place, at: performance.now() });
    } else this.#others.delete(tab);
    this.#polls.changed();
  }

  /** What the other tabs follow. @returns {Place[]} */
  others() {
    for (const [tab, { place, at }] of this.#others) {
      place.fresh = true; // it looks after itself
      if (elapsed(at) > GONE) this.#others.delete(tab);
    }
    return [...this.#others.values()].map(({ place }) => place);
  }

  /** What the tab that leads passes on: an answer, or that something is wrong. Returns whether it is for all of ours. */
  #hear(/** @type {any} */ { items, after, text, wrong }) {
    const { places } = this.#polls;
    const answer = wrong ? {} : JSON.parse(text);
    if (wrong || answer.gap) {
      for (const place of places) {
        place.fresh = false;
        place.alone ||= wrong !== "away";
      }
      return !wrong;
    }
    let all = true;
    const asked = new Map();
    for (const place of places) {
      const { fresh, read } = place;
      if (!fresh) continue;
      if (!place.items.every((item) => items.includes(item))) all = false;
      else if (number(after) <= number(read) && number(answer.cursor) >= number(read)) asked.set(place, read);
      else place.fresh = false; // what does not go on where it is makes it ask once for itself
    }
    this.#polls.settle({ asked, limit: Infinity }, answer, text, true);
    return all;
  }

  /** Passes on what concerns the other tabs. */
  pass(/** @type {Poll} */ { wait, items, after }, /** @type {any} */ { gap }, /** @type {string} */ text) {
    if (wait !== 0) this.say({ items: [...items], after, text });
    else if (gap?.reason === "reset") this.say({ wrong: "reset" });
  }

  /** One of what the tabs follow is refused: each finds out for itself whether it is its own. */
  refused() {
    this.say({ wrong: "refused" });
    this.#others.clear();
  }

  /** Tells the tab that leads what this one follows. */
  tell() {
    const places = [...this.#polls.places].filter(({ fresh }) => fresh);
    const items = [...new Set(places.flatMap((place) => place.items))];
    const told = items.join();
    if (this.leads || (told === this.#told && elapsed(this.#toldAt) < TELL_AGAIN)) return;
    this.#told = told;
    this.#toldAt = performance.now();
    this.say({ tab: this.#id, items, read: least(places) });
  }

  say(/** @type {any} */ what) {
    this.#channel?.postMessage(what);
  }
}

/** Who a token is for: its claims but for its times, or the token itself, in a form that it cannot be read from. */
function user(/** @type {string} */ token) {
  let text = token;
  try {
    const { exp, iat, nbf, jti, ...claims } = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    text = JSON.stringify(claims);
  } catch {} // not a JWT
  // Two hashes of 32 bits (FNV-1a), because that of the platform is asynchronous.
  const hash = (/** @type {number} */ seed) =>
    [...text].reduce((so, each) => Math.imul(so ^ (each.codePointAt(0) ?? 0), 16777619), seed) >>> 0;
  return `${hash(2166136261)}${hash(text.length + 1)}`;
}
