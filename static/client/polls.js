/** The polls of a connection: for which subscriptions each asks, and what they get of an answer. */

import { number } from "./cursors.js";
import { FOREIGN, NotifierError, STALE } from "./errors.js";
import { CUT, Line, LONGEST_WAIT } from "./line.js";
import { alone, behind, INTERRUPTED, Loop, packed, Poll } from "./poll.js";
import { query, Requests } from "./requests.js";
import { LIMIT } from "./subscription.js";
import { backoff, BACKOFF_CAP, deadline, elapsed, LATE, retryAfter } from "./times.js";

/** @typedef {import("../client.js").Connecting} Connecting */
/** @typedef {import("../client.js").Message} Message */
/** @typedef {import("../client.js").Retry} Retry */
/** @typedef {import("../client.js").State} State */
/** @typedef {import("./subscription.js").Place} Place */
/** @typedef {import("./tabs.js").Tabs} Tabs */

const OUTAGE_CAP = 3_000; // ms; while no Notifier answers: it must not take long to notice that one does again,
const OUTAGE = 300_000; // and for so long it does not cost much
const AT_ONCE = 1_000; // no poll that parks comes back empty so soon, but for once

/** Text that no other request has. */
const nonce = () => Math.random().toString(36).slice(2);

/**
 * Subscriptions that have everything wait together, with one poll: a list has one cursor whatever is in it. Those that
 * are behind (new ones, slow ones, all after a failure) are looked after beside it, by requests that do not wait, one at
 * a time. So a connection has two requests under way at the most.
 */
export class Polls {
  /** @type {State} */
  state = "connecting";
  /** @type {Set<(state: State, retry?: Retry) => void>} */
  listeners = new Set();
  /** @type {Set<Place>} */
  places = new Set();
  requests;
  #options;
  #line = new Line();
  /** The first is for those that are behind, the others for those that wait: one, unless one list cannot hold them. */
  #loops = [new Loop()];
  /** Ends with the last subscription, and with it what listens to the page. */
  #life = new AbortController();
  #closed = false;
  #hidden = false;
  #failures = 0;
  /** @type {number | undefined} when the first of them was */
  #lost;
  /**
   * No two polls have the same URL at a time: Chrome's cache makes equal requests wait for one another. And under one URL
   * cursors only grow: then an old answer that a cache gives again is behind, and is known by that.
   */
  #nonce = nonce();
  /** @type {string | undefined} the cursor asked for last */
  #asked;
  /**
   * Whether the service gets to see our headers, which another network may change. Where it does not, all is in the
   * URL, and no two requests have the same.
   * @type {boolean | undefined}
   */
  #headers;
  /** Whether a poll of this browser serves all its tabs. */
  #shares = false;
  /** @type {Tabs | undefined} */
  #tabs;

  constructor(/** @type {Connecting} */ options) {
    this.#options = options;
    this.requests = new Requests(options);
    if (options.share && globalThis.navigator?.locks && globalThis.BroadcastChannel) this.#share();
  }

  /** Whether it has no subscriptions. */
  get idle() {
    return !this.places.size;
  }

  url(/** @type {string[]} */ items) {
    return this.requests.url(items);
  }

  enter(/** @type {Place} */ place) {
    if (this.#closed) return place.end();
    if (this.idle) this.#listen();
    this.places.add(place);
  }

  leave(/** @type {Place} */ place) {
    this.places.delete(place);
    if (this.idle) {
      this.#life.abort();
      this.#tabs?.part();
      for (const loop of this.#loops) loop.interrupt();
    } else this.changed();
  }

  close() {
    this.#closed = true;
    for (const place of this.places) place.end();
    this.#tell([], "closed");
  }

  #listen() {
    const { document } = globalThis;
    this.#life = new AbortController();
    const { signal } = this.#life;
    const on = (/** @type {any} */ target, /** @type {string} */ type, /** @type {() => unknown} */ listener) =>
      target?.addEventListener?.(type, listener, { signal });
    const again = () => this.#again();
    const hide = (/** @type {boolean} */ hidden) => {
      this.#hidden = hidden;
      if (hidden) this.#tabs?.part();
      again();
    };
    // A poll parked before a sleep, or on another network, may be dead without a sign.
    on(globalThis, "online", () => this.retryNow());
    on(globalThis, "offline", again);
    on(document, "resume", again);
    on(document, "visibilitychange", () => document.visibilityState === "visible" && again());
    // A page with a request under way may not enter the back/forward cache.
    on(globalThis, "pagehide", () => hide(true));
    on(globalThis, "pageshow", () => this.#hidden && hide(false));
  }

  retryNow() {
    this.#failures = 0;
    this.#lost = undefined;
    this.#again();
  }

  /** All are asked for at once, without waiting: it yields a cursor, and a sign that all is well. */
  #again() {
    behind(this.places);
    for (const loop of this.#loops) loop.interrupt();
    this.changed();
  }

  /** A subscription has come, has gone, or waits for its next message. */
  changed() {
    const waiting = this.#waiting();
    this.#tabs?.tell();
    while (this.#loops.length <= waiting.length) this.#loops.push(new Loop());
    this.#loops.forEach((loop, at) => {
      const { poll } = loop;
      const wanted = at ? (waiting[at - 1] ?? []) : [...this.places];
      const lacks = at && poll && !wanted.every((place) => poll.joined(place));
      if (poll && (lacks || !wanted.some((place) => poll.asked.has(place)))) loop.interrupt();
      this.#run(loop);
    });
  }

  /** Those that have everything, in lists as long as the service takes them: one, mostly. */
  #waiting() {
    // What is slow leaves the others: what comes next is kept by the service.
    behind([...this.places].filter(({ queue }) => queue.length > 2 * LIMIT));
    if (this.#shares && !this.#tabs?.leads) return []; // another tab polls
    return packed([...this.places, ...(this.#tabs?.others() ?? [])].filter(({ fresh }) => fresh));
  }

  /** Whom to ask for next. */
  #choose(/** @type {Loop} */ loop) {
    if (this.#hidden) return [];
    const at = this.#loops.indexOf(loop);
    if (at) {
      const list = this.#waiting()[at - 1] ?? [];
      return list.some(({ waits }) => waits) ? list : [];
    }
    const late = [...this.places].filter(({ fresh, waits }) => !fresh && waits);
    const [first] = late;
    if (!first?.joins) return late.slice(0, 1);
    return packed(late.filter(({ joins, read }) => joins && read === first.read))[0];
  }

  async #run(/** @type {Loop} */ loop) {
    if (loop.runs) return;
    loop.runs = true;
    await null; // all that subscribe now are asked for at once
    for (;;) {
      const { paused } = loop;
      await paused;
      if (paused !== loop.paused) continue; // another pause has begun
      if (!this.#choose(loop).length) break;
      const poll = () => this.#poll(loop);
      await (this.#tabs && loop === this.#loops[0] ? this.#tabs.turn(poll) : poll());
    }
    loop.runs = false;
  }

  /** One poll, and the pause after it, if it needs one. */
  async #poll(/** @type {Loop} */ loop) {
    const places = this.#choose(loop);
    if (!places.length) return;
    const poll = new Poll(places, this.#line, loop !== this.#loops[0], () => this.#again());
    loop.poll = poll;
    try {
      const { answer, text, response } = await this.#ask(loop, poll);
      const { headers, status } = response;
      this.#line.carried(poll, answer.messages.length);
      if (poll.headers && poll.wait !== undefined) this.#headers = headers.has("preference-applied");
      // It did not know the cursor.
      if (poll.headers && !this.#headers) return behind(poll.asked.keys());
      const asked = retryAfter(headers);
      if (this.#stale(loop, poll, answer, asked)) {
        const detail = "Something on the way, perhaps a cache, gives an old answer again.";
        throw new NotifierError(status, { code: STALE, detail });
      }
      this.#failures = 0;
      this.#lost = undefined;
      this.#tabs?.join(poll.token);
      this.#tabs?.pass(poll, answer, text);
      this.settle(poll, answer, text);
      if (answer.messages.length) return;
      if (asked) this.#pause(loop, asked + backoff(0), asked);
      else if (loop.idle) this.#pause(loop, backoff(loop.idle));
    } catch (error) {
      if (error !== INTERRUPTED) this.#failed(loop, poll, error);
    } finally {
      loop.poll = undefined;
      this.changed();
    }
  }

  #ask(/** @type {Loop} */ loop, /** @type {Poll} */ poll) {
    const { wait, limit, after } = poll;
    const cursor = after ?? this.#asked;
    const grows = cursor === this.#asked || number(cursor) > number(this.#asked);
    if (this.#asked !== undefined && !grows) this.#nonce = nonce();
    this.#asked = cursor;
    const [place, another] = poll.asked.keys();
    // One that begins keeps its URL; where there are several, none does.
    const more = { ...(another ? {} : place.begin), limit: limit === LIMIT ? undefined : limit, nonce: this.#nonce };
    /** @type {Record<string, string>} */
    const headers = {};
    poll.headers = this.#headers !== false;
    if (poll.headers) {
      // Only the cursor changes from poll to poll: that is how the server recognises them. And browsers keep the answer
      // to a preflight for one URL. (`cache: "no-store"` in place of a nonce costs a preflight each time.)
      if (after !== undefined) headers["Last-Event-ID"] = encodeURIComponent(after);
      if (wait !== undefined) headers.Prefer = `wait=${wait}`;
      if (wait === 0 && this.#loops.some((other) => other !== loop && other.poll)) more.nonce += "-";
    } else Object.assign(more, { after, wait, nonce: nonce() });
    // An answer from something in between may have got into the cache.
    const cache = this.#failures ? "reload" : "default";
    return this.requests.ask(poll, this.url([...poll.items]) + query(more), { headers, cache });
  }

  /** Whether `answer` is an old one that came again. */
  #stale(/** @type {Loop} */ loop, /** @type {Poll} */ { after = "", wait, sent }, /** @type {any} */ { messages, cursor, gap }, asked = 0) {
    const old = (/** @type {Message} */ { id }) => number(id) <= number(after);
    const idle = wait !== 0 && !messages.length && cursor === after && !asked;
    // Once it may be that access has changed. What comes again is an answer that a cache has.
    const soon = Math.min(AT_ONCE, (wait ?? LONGEST_WAIT) * 500);
    loop.idle = idle && elapsed(sent) < soon ? loop.idle + 1 : 0;
    const reset = gap?.reason === "reset";
    const repeated = reset ? cursor === after : number(cursor) < number(after) || messages.some(old);
    if (!repeated && loop.idle < 2) return false;
    loop.idle = 0;
    this.#headers = false;
    return true;
  }

  /**
   * An answer has come: gives each subscription what concerns it.
   *
   * @param {Pick<Poll, "asked" | "limit">} poll  @param {any} answer  @param {string} text  @param {boolean} [several]
   */
  settle({ asked, limit }, { messages, cursor, gap }, text, several = asked.size > 1) {
    this.#tell(asked.keys(), "live");
    // Which of them has lost something, or gone back, each is told when it asks alone, from a cursor of its own.
    if (gap && several) return alone(asked.keys());
    if (gap?.reason === "reset") alone(this.places);
    try {
      const { parse } = this.#options;
      const shown = parse && messages.length ? parse(text).messages : messages;
      for (const [place, after] of asked) {
        // It has ended, or another answer has come first.
        if (place.over || place.read !== after) continue;
        place.alone = false;
        place.fresh = messages.length < limit;
        const its = (/** @type {any} */ _, /** @type {number} */ at) =>
          !several || (place.pattern.test(messages[at].topic) && !(number(messages[at].id) <= number(after)));
        // Its turn to be asked for comes after that of the others.
        if (this.places.delete(place)) this.places.add(place);
        place.take(shown.filter(its), cursor, gap);
      }
    } catch (error) {
      for (const place of asked.keys()) place.end(error); // of the user's own function
    }
  }

  /** Ends the subscriptions asked for with `error` where nothing else can be done; else they ask again after a pause. */
  #failed(/** @type {Loop} */ loop, /** @type {Poll} */ poll, /** @type {any} */ error) {
    const asked = [...poll.asked.keys()];
    const ours = error instanceof NotifierError && error.code !== FOREIGN;
    // A poll that shall not park takes so long only if it is not understood.
    if (!ours && poll.wait === 0 && elapsed(poll.sent) > CUT) this.#headers ??= false;
    if (ours && !error.temporary && !(error.status === 401 && this.requests.renews)) {
      // One of several that is not allowed must not take the others with it.
      if (asked.length > 1 && error.status !== 401) {
        alone(asked);
        this.#tabs?.refused();
      } else for (const place of asked) place.end(error);
      return;
    }
    behind(asked);
    if (!ours && this.#line.broke(poll)) return; // a quick one shows whether anybody is there
    const now = performance.now();
    this.#lost ??= now;
    const floor = error.retryAfter || 0;
    const cap = !ours && now - this.#lost < OUTAGE ? OUTAGE_CAP : BACKOFF_CAP;
    const delay = floor + backoff(this.#failures++, undefined, cap);
    this.#tell(asked, "retrying", { error, delay });
    for (const each of new Set([this.#loops[0], loop])) this.#pause(each, delay, floor);
    if (loop !== this.#loops[0]) this.#tabs?.say({ wrong: "away" });
  }

  /** Before the next poll. An interruption ends it early, though not before the `floor` that the server asked for. */
  #pause(/** @type {Loop} */ loop, /** @type {number} */ ms, floor = 0) {
    if (this.idle) return;
    const earliest = Date.now() + floor;
    loop.paused = new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      loop.wake = () => {
        if (!this.idle && Date.now() < earliest) return;
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /** @param {Iterable<Place>} places  @param {State} state  @param {Retry} [retry] */
  #tell(places, state, retry) {
    const { onError } = this.#options;
    const listening = [...places].filter((place) => place.tell(state, retry)).length || this.listeners.size;
    const news = retry || state !== this.state;
    this.state = state;
    try {
      if (retry && onError) onError(retry.error, retry.delay);
      else if (retry && !listening) console.warn("Trying again after an error:", retry.error);
      if (news) for (const listener of this.listeners) listener(state, retry);
    } catch (error) {
      console.error(error); // of the user's own functions
    }
  }

  /** Loads what tabs share a poll by, which other pages do without. Until it is there, or cannot be had, no poll waits. */
  async #share() {
    this.#shares = true;
    let disarm = () => {};
    const late = new Promise((_, reject) => {
      disarm = deadline(LATE, () => reject(new Error("no answer in time")));
    });
    try {
      const { Tabs } = await Promise.race([import("./tabs.js"), late]);
      this.#tabs = new Tabs(this, this.#options.share);
    } catch (error) {
      this.#shares = false;
      console.warn("This tab polls alone, because tabs.js cannot be loaded:", error);
    }
    disarm();
    behind(this.places); // the next answer says whom it is shared with
    this.changed();
  }
}
