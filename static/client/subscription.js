/** A subscription: topics and patterns, and a cursor of its own. */

import { number } from "./cursors.js";
import { query } from "./requests.js";

/**
 * @template [T=any]
 * @typedef {import("../client.js").Message<T>} Message
 */
/** @typedef {import("../client.js").Following} Following */
/** @typedef {import("../client.js").Gap} Gap */
/** @typedef {import("../client.js").Retry} Retry */
/** @typedef {import("../client.js").State} State */
/** @typedef {import("./polls.js").Polls} Polls */

export const LIMIT = 100; // messages; what the server takes without being told

/**
 * Topics and patterns, followed forever: each message at least once, in order, across lost connections, restarts of the
 * server and sleep. Nothing is asked for while no message is awaited, so a slow consumer is never flooded.
 *
 * Leaving the loop, `return()` and the signal end it at once and without an error. A refusal of the service (an invalid
 * topic, a missing key, a topic that is not allowed) throws a NotifierError. Everything else is tried again, and told.
 *
 * @template [T=any]
 */
export class Subscription {
  #place;

  /** @param {string | string[]} topics  @param {Following} options  @param {Polls} polls */
  constructor(topics, options, polls) {
    this.#place = new Place(topics, options, polls);
  }

  /** Where to resume. It passes a message only when the next one is awaited: a message in hand comes again. */
  get cursor() {
    return this.#place.cursor;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<Message<T>, undefined>>} */
  next() {
    return this.#place.next((queue) => queue.shift());
  }

  /** @returns {Promise<IteratorResult<any, undefined>>} */
  async return() {
    this.#place.end();
    return { value: undefined, done: true };
  }

  /**
   * The same in arrays: all messages that are there, at once. The cursor passes them when the next ones are awaited.
   *
   * @returns {AsyncIterableIterator<Message<T>[]>}
   */
  batches() {
    const all = (/** @type {any[]} */ queue) => {
      const gap = queue.findIndex((each) => each.gap);
      return queue.splice(0, gap < 0 ? queue.length : gap);
    };
    const next = () => this.#place.next(all);
    const batches = { next, return: () => this.return(), [Symbol.asyncIterator]: () => batches };
    return batches;
  }
}

/** What a subscription and its connection know of it. */
export class Place {
  /** Up to where its caller has dealt with everything. @type {string | undefined} */
  cursor;
  /** Up to where everything has been handed to it. @type {string | undefined} */
  read;
  /** Messages, and `{ gap }` where some were lost. @type {any[]} */
  queue = [];
  over = false;
  /** Whether its next message is awaited: only then is anything asked for. */
  waits = false;
  /** Whether it has all that there was when it asked last: then it may wait with the others. */
  fresh = false;
  /** Whether it must be asked for alone, because an answer to several concerned one of them. */
  alone = false;
  #options;
  #polls;
  #entered = false;
  /** @type {string | undefined} the id of the last message handed out, until the next is awaited */
  #handed;
  /** @type {any} */
  #error;
  #wake = () => {};
  /** @type {Promise<unknown>} the previous call of `next`, whatever its outcome */
  #turn = Promise.resolve();
  /** @type {State | undefined} */
  #state;

  /** @param {string | string[]} topics  @param {Following} options  @param {Polls} polls */
  constructor(topics, options, polls) {
    const { after, since, last, lastEach, limit = LIMIT, wait = Infinity } = options;
    if (!Number.isInteger(limit) || limit < 1 || limit > 1_000)
      throw new TypeError("limit is a whole number from 1 to 1000");
    if (!(wait >= 1)) throw new TypeError("wait is a number of seconds, 1 to 28");
    this.#options = options;
    this.#polls = polls;
    this.limit = limit;
    this.wait = wait;
    this.items = [topics].flat().join(",").split(",");
    this.pattern = matching(this.items);
    /** Where to begin, as long as no cursor says so. */
    this.begin = { since, last, last_each: lastEach };
    this.read = this.cursor = after === undefined || after === null ? undefined : String(after);
    encodeURIComponent(this.#url + query(this.begin) + this.cursor); // throws here, once, and not in each attempt
  }

  get #url() {
    return this.#polls.url(this.items);
  }

  /** Whether one request can be for it and for others. */
  get joins() {
    return !this.alone && (this.read !== undefined || !query(this.begin));
  }

  /** @param {(queue: any[]) => any} taken  @returns {Promise<IteratorResult<any, undefined>>} */
  next(taken) {
    const turn = this.#turn.then(() => this.#advance(taken));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** @param {(queue: any[]) => any} taken  @returns {Promise<IteratorResult<any, undefined>>} */
  async #advance(taken) {
    const { queue } = this;
    try {
      if (!this.#entered) await this.#enter();
      for (;;) {
        await this.#pass();
        if (this.over && !(this.#error && queue.length)) break;
        const gap = queue[0]?.gap && queue.shift().gap;
        if (gap) await this.#options.onGap?.(gap);
        else if (queue.length) {
          const value = taken(queue);
          this.#handed = [value].flat().at(-1).id;
          return { value, done: false };
        } else await this.#news();
      }
    } catch (error) {
      this.end(error); // of the user's own functions
    }
    const error = this.#error;
    this.#error = undefined; // it is told once
    if (error) throw error;
    return { value: undefined, done: true };
  }

  async #enter() {
    this.#entered = true;
    const { store, signal } = this.#options;
    const kept = store && (await store.getItem(this.#url));
    if (kept) this.read = this.cursor = String(kept);
    signal?.addEventListener("abort", this.#abort);
    if (signal?.aborted) this.end();
    if (this.over) return;
    this.tell("connecting");
    this.#polls.enter(this);
  }

  #abort = () => this.end();

  /** Moves the cursor past what was handed out, or to where the server has read, if that was the last. */
  async #pass() {
    const cursor = this.queue.length ? (this.#handed ?? this.cursor) : this.read;
    this.#handed = undefined;
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    await this.#options.store?.setItem(this.#url, String(cursor));
  }

  /** @returns {Promise<void>} */
  #news() {
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.waits = true;
      this.#polls.changed();
    });
  }

  #resume() {
    this.waits = false;
    this.#wake();
  }

  /** An answer has come. @param {Message[]} messages  @param {string} cursor  @param {Gap} [gap] */
  take(messages, cursor, gap) {
    // A cursor that goes back is that of an answer which others needed, unless the database is another one.
    if (gap || !(number(cursor) < number(this.read))) this.read = cursor;
    if (gap) this.queue.push({ gap });
    this.queue.push(...messages);
    if (this.queue.length || !this.waits) this.#resume();
    else this.#pass().catch((error) => this.end(error));
  }

  /** With an error once what came before it has been handed out. @param {any} [error] */
  end(error) {
    if (this.over) return;
    this.over = true;
    this.#error = error;
    this.#options.signal?.removeEventListener("abort", this.#abort);
    this.#polls.leave(this);
    this.#resume();
  }

  /** Returns whether anybody listens. @param {State} state  @param {Retry} [retry] */
  tell(state, retry) {
    const { onState, onError } = this.#options;
    const news = retry || state !== this.#state;
    this.#state = state;
    try {
      if (retry) onError?.(retry.error, retry.delay);
      if (news) onState?.(state, retry);
    } catch (error) {
      this.end(error); // of the user's own functions
    }
    return Boolean(onState || onError);
  }
}

/** The topics that a list matches: `*` is one segment, `**` at the end is one or more. */
function matching(/** @type {string[]} */ items) {
  const patterns = items.map((item) =>
    item
      .replace(/[^\w/]/g, "\\$&")
      .replace(/(^|\/)\\\*\\\*$/, "$1.+")
      .replace(/(^|\/)\\\*(?=\/|$)/g, "$1[^/]+"),
  );
  return new RegExp(`^(${patterns.join("|")})$`);
}
