/**
 * Notifier's client for browsers, Node 18, Deno and Bun: one file, nothing to install.
 *
 *     import { connect } from "/client.js";
 *     const notifier = connect();
 *     const stop = notifier.subscribe("orders/*", ({ topic, data }) => console.log(topic, data));
 *     for await (const { data } of notifier.subscribe("user/42/**", { last: 10 })) console.log(data);
 *
 * From top to bottom: what users call (`connect`, `subscribe`, `publish`); a subscription, which has a cursor of its
 * own; the connection, which asks for all of them with one poll; requests; helpers.
 *
 * @typedef {"connecting" | "live" | "retrying" | "closed"} State
 * @typedef {{ reason: "retention" | "reset", after: string }} Gap
 * @typedef {{ error: Error, delay: number }} Retry  the next attempt is made after `delay` milliseconds
 * @typedef {string | ((refused?: string) => string | null | undefined | Promise<string | null | undefined>)} Token
 */

/**
 * @template [T=any]
 * @typedef {object} Message
 * @property {string} id  also a cursor: `subscribe(topics, { after: message.id })` goes on behind it
 * @property {string} topic
 * @property {string} time  RFC 3339
 * @property {T} data  JSON; text as a string; other bytes as base64, and `encoding` says so
 * @property {string} [content_type]  unless it is application/json
 * @property {"base64"} [encoding]
 * @property {string} [title]
 * @property {string} [click]
 * @property {number} [priority]  1 to 5
 * @property {string[]} [tags]
 */

/**
 * @typedef {object} Connecting
 * @property {string | URL} [url]  the service; unless given, where this module came from
 * @property {string} [key]  a key or a token, sent as a bearer token
 * @property {Token} [token]  the same, or a function that returns one: it is called for the first request, and after a
 *   401 again, with the token that was refused; what it returns is used until then
 * @property {(error: Error, delay?: number) => void} [onError]  what went wrong, and in how many milliseconds it is
 *   tried again; without a delay, a subscription with a handler has ended. Unless given, the browser's console has it
 * @property {boolean | string} [share]  true or a name: the tabs of a browser with the same service, user and name have
 *   one poll together. Where a browser cannot, each has its own
 * @property {typeof globalThis.fetch} [fetch]
 * @property {HeadersInit} [headers]  sent with each request, beside our own; one that cannot be sent is a TypeError
 * @property {(text: string) => any} [parse]  reads an answer in the place of JSON.parse, which rounds large numbers
 */

/**
 * @typedef {object} Following  of several beginnings the first counts; without one, what is new from the first poll on
 * @property {string | number | null} [after]  a cursor or message id, "earliest" or "latest"
 * @property {string} [since]  such as "10m", or RFC 3339
 * @property {number} [last]  the newest so many, then whatever comes
 * @property {number} [lastEach]  the newest so many of each topic, then whatever comes
 * @property {Store} [store]  where the cursor is kept, such as localStorage: one that is there counts before all others
 * @property {number} [limit]  most messages in one answer, 1 to 1000, by default 100. A slow line is asked for fewer
 * @property {number} [wait]  seconds that a poll may park, 1 to 28. Less is found out where something in between is
 *   impatient; unless given, the server decides
 * @property {AbortSignal} [signal]
 * @property {(gap: Gap) => unknown} [onGap]  messages were lost; awaited before the next message is handed out
 * @property {(error: Error, delay?: number) => void} [onError]  as that of the connection, for this subscription
 * @property {(state: State, retry?: Retry) => void} [onState]
 */

/** @typedef {{ getItem(key: string): any, setItem(key: string, cursor: string): any }} Store  may be asynchronous */

/**
 * @typedef {object} Publishing
 * @property {string} [title]
 * @property {string} [click]
 * @property {number} [priority]
 * @property {string | string[]} [tags]
 */

/** @typedef {{ signal?: AbortSignal, idempotencyKey?: string }} Sending */

// Where this module came from, which the service writes here when it serves it. In a bundle it is not there to be found.
const HOME = undefined;

const BACKOFF = 500;
const BACKOFF_CAP = 30_000;
const OUTAGE_CAP = 3_000; // while no Notifier answers: it must not take long to notice that one does again,
const OUTAGE = 300_000; // and for so long it does not cost much
const RETRY_AFTER_CAP = 3_600_000; // no server means to keep a client away for longer
const LONGEST_WAIT = 28; // seconds; the server parks no poll for longer
const LATE = 10_000; // an answer that has not begun this long after the wait will not come
const PATIENCE = 70_000; // nor will one to what is published: the server takes a minute for a body at the most
const SILENCE = 30_000; // nor will the rest of one that stops for so long
const PIECE = 1_024; // bytes; a body that comes more slowly has stopped
const CUT = 1_000; // a poll that breaks after it parked for so long was cut, perhaps by something that is impatient
const FORGET_CUT = 600_000; // and perhaps was not: a poll parks for its whole time again after ten minutes
const FIRST_LIMIT = 10; // messages: on a slow line the first answer must not take minutes
const LIMIT = 100; // what the server takes without being told
const FAST = 1_000; // a full answer that takes less may be twice as large
const SLOW = 5_000; // one that takes more should be half as large
const AT_ONCE = 1_000; // no poll that parks comes back empty so soon, but for once
const SLEPT = 30_000; // a timer this late was not slow: the machine slept
const MUTE = 45_000; // a tab that leads others and says nothing for so long has stopped
const WATCH = 5_000; // which they look for so often
const TELL_AGAIN = 60_000; // a tab tells what it follows so often,
const GONE = 200_000; // and is gone if it does not for so long
const ITEMS = 100; // topics and patterns that one poll may ask for,
const SEGMENTS = 400; // and segments in its patterns
const FOREIGN = "foreign_answer";
const STALE = "stale_answer";
const UNKNOWN = "outcome_unknown";
const DOUBT = " The message may be stored or not.";
const OURS = /^(accept|content-type|idempotency-key|last-event-id|prefer)$/; // headers
const FOREVER = 2 ** 31 - 1; // the longest that timers can

/**
 * A connection to the service: any number of subscriptions, which one poll serves, and what is published.
 *
 * @param {Connecting} [options]
 */
export function connect(options = {}) {
  return new Connection(options);
}

/**
 * Follows topics and patterns forever, as `connect(options).subscribe(topics, options)` does. Subscriptions with the
 * same service, token, `fetch`, `headers` and `parse` have one connection.
 *
 * @template [T=any]
 * @param {string | string[]} topics  @param {Connecting & Following} [options]  @returns {Subscription<T>}
 */
export function subscribe(topics, options = {}) {
  return common(options).subscribe(topics, options);
}

/**
 * Publishes one message, as `connect(options).publish(topic, data, options)` does.
 *
 * @param {string} topic  @param {any} data
 * @param {Connecting & Publishing & Sending & { contentType?: string }} [options]
 */
export async function publish(topic, data, options = {}) {
  return connect(options).publish(topic, data, options);
}

/** The connections of `subscribe`. @type {Map<Connection, Connecting>} */
const shared = new Map();

/** @param {Connecting} options */
function common(options) {
  const same = (/** @type {any} */ its, /** @type {any} */ given) =>
    ["url", "key", "token", "share", "fetch", "headers", "parse"].every((name) => its[name] === given[name]);
  for (const [connection, its] of shared) {
    if (same(its, options)) return connection;
    if (connection.idle) shared.delete(connection);
  }
  const { onError, ...rest } = options; // that is one for each subscription
  const connection = connect(rest);
  shared.set(connection, options);
  return connection;
}

/**
 * A refusal: `status` and, from the service's problem details, the stable `code` and the sentence in `detail`. Two
 * codes are the client's: `foreign_answer`, because something between here and the service answered in its place, and
 * `stale_answer`, because something gave an old answer again. `outcome_unknown` is said by both: what was published may
 * be stored or not.
 */
export class NotifierError extends Error {
  /** @param {number} status  @param {any} problem  @param {number} [retryAfter] milliseconds, 0 unless asked for */
  constructor(status, problem, retryAfter = 0) {
    const { code, detail = "" } = problem;
    super(`${status} ${code}${detail && `: ${detail}`}`);
    this.name = "NotifierError";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. Only what the service itself says is final. */
  get temporary() {
    return (
      this.status >= 500 ||
      [408, 425, 429].includes(this.status) ||
      [FOREIGN, STALE].includes(this.code)
    );
  }

  /** @param {Response} response */
  static async from(response) {
    const ours = /^application\/problem\+json\b/i.test(response.headers.get("content-type") ?? "");
    const problem = ours && (await response.json().catch(() => null));
    if (typeof problem?.code !== "string") return foreign(response);
    return new NotifierError(response.status, problem, retryAfter(response.headers));
  }
}

/** The error for an answer that is not a Notifier's. */
function foreign(/** @type {Response} */ { status, url, headers, body }, code = FOREIGN) {
  body?.cancel().catch(() => {}); // it may have been read, and it may never end
  const what = status || "a redirect"; // which browsers do not show
  const doubt = code === FOREIGN ? "" : DOUBT;
  const detail = `Something other than Notifier answers at ${url.split("/v1/")[0]}, with ${what}.${doubt}`;
  return new NotifierError(status, { code, detail }, retryAfter(headers));
}

/** Milliseconds to wait after `failures` failed attempts, the first being 0: full jitter, doubling up to a cap. */
export function backoff(/** @type {number} */ failures, random = Math.random(), cap = BACKOFF_CAP) {
  return random * Math.min(cap, BACKOFF * 2 ** failures);
}

/** Milliseconds that `Retry-After`, in seconds or as a date, asks to wait; 0 without one. */
export function retryAfter(/** @type {Headers} */ headers, now = Date.now()) {
  const value = headers.get("retry-after")?.trim() ?? "";
  const asked = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - now;
  return Math.min(Math.max(asked || 0, 0), RETRY_AFTER_CAP);
}

/**
 * What a connection knows of a subscription.
 *
 * @typedef {object} Place
 * @property {string[]} items  topics and patterns
 * @property {RegExp} pattern  which topics they match
 * @property {Record<string, any>} [begin]  where to begin, as long as no cursor says so
 * @property {string | undefined} read  up to where everything has been handed to the subscription
 * @property {any[]} queue  messages, and `{ gap }` where some were lost
 * @property {boolean} over  whether it has ended
 * @property {boolean} waits  whether its next message is awaited: only then is anything asked for
 * @property {boolean} fresh  whether it has all that there was when it asked last: then it may wait with the others
 * @property {boolean} alone  whether it must be asked for alone, because an answer to several concerned one of them
 * @property {number} limit
 * @property {number | undefined} wait
 * @property {(messages: Message[], cursor: string, gap?: Gap) => void} take
 * @property {(error?: any) => void} end
 * @property {(state: State, retry?: Retry) => boolean} tell  whether anybody listens
 */

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
  /**
   * Where to resume. It passes a message only when the next one is awaited: a message in hand comes again.
   * @type {string | undefined}
   */
  cursor;
  /** @type {string | undefined} the id of the last message handed out, until the next is awaited */
  #handed;
  #entered = false;
  /** @type {any} */
  #error;
  #wake = () => {};
  /** @type {Promise<unknown>} the previous call of `next`, whatever its outcome */
  #turn = Promise.resolve();
  #options;
  #door;
  /** @type {Place} */
  #place;

  /** @param {string | string[]} topics  @param {Following} options  @param {Door} door */
  constructor(topics, options, door) {
    const { after, since, last, lastEach, limit = LIMIT, wait } = options;
    if (!Number.isInteger(limit) || limit < 1 || limit > 1_000)
      throw new TypeError("limit is a whole number from 1 to 1000");
    if (wait !== undefined && !(wait >= 1)) throw new TypeError("wait is a number of seconds, 1 to 28");
    this.cursor = after === undefined || after === null ? undefined : String(after);
    this.#options = options;
    this.#door = door;
    const items = [topics].flat().join(",").split(",");
    const begin = { since, last, last_each: lastEach };
    encodeURIComponent(door.url(items) + query(begin) + this.cursor); // throws here, once, and not in each attempt
    this.#place = {
      items,
      pattern: matching(items),
      begin: query(begin) ? begin : undefined,
      read: this.cursor,
      queue: [],
      over: false,
      waits: false,
      fresh: false,
      alone: false,
      limit,
      wait,
      take: (messages, cursor, gap) => this.#take(messages, cursor, gap),
      end: (error) => this.#end(error),
      tell: (state, retry) => this.#tell(state, retry),
    };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<Message<T>, undefined>>} */
  next() {
    return this.#next((queue) => queue.shift());
  }

  /** @returns {Promise<IteratorResult<any, undefined>>} */
  async return() {
    this.#end();
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
    const batches = { next: () => this.#next(all), return: () => this.return(), [Symbol.asyncIterator]: () => batches };
    return batches;
  }

  /** @param {(queue: any[]) => any} taken  @returns {Promise<IteratorResult<any, undefined>>} */
  #next(taken) {
    const turn = this.#turn.then(() => this.#advance(taken));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** @param {(queue: any[]) => any} taken  @returns {Promise<IteratorResult<any, undefined>>} */
  async #advance(taken) {
    const { queue } = this.#place;
    try {
      if (!this.#entered) await this.#enter();
      for (;;) {
        await this.#pass();
        if (this.#place.over && !(this.#error && queue.length)) break;
        const gap = queue[0]?.gap && queue.shift().gap;
        if (gap) await this.#options.onGap?.(gap);
        else if (queue.length) {
          const value = taken(queue);
          this.#handed = [value].flat().at(-1).id;
          return { value, done: false };
        } else await this.#news();
      }
    } catch (error) {
      this.#end(error); // of the user's own functions
    }
    const error = this.#error;
    this.#error = undefined; // it is told once
    if (error) throw error;
    return { value: undefined, done: true };
  }

  async #enter() {
    this.#entered = true;
    const { store, signal } = this.#options;
    const kept = store && (await store.getItem(this.#door.url(this.#place.items)));
    if (kept) this.#place.read = this.cursor = String(kept);
    signal?.addEventListener("abort", this.#abort);
    if (signal?.aborted) this.#end();
    if (this.#place.over) return;
    this.#tell("connecting");
    this.#door.enter(this.#place);
  }

  #abort = () => this.#end();

  /** Moves the cursor past what was handed out, or to where the server has read, if that was the last. */
  async #pass() {
    const { queue, read } = this.#place;
    const cursor = queue.length ? (this.#handed ?? this.cursor) : read;
    this.#handed = undefined;
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    await this.#options.store?.setItem(this.#door.url(this.#place.items), String(cursor));
  }

  /** @returns {Promise<void>} */
  #news() {
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#place.waits = true;
      this.#door.changed();
    });
  }

  /** @param {Message[]} messages  @param {string} cursor  @param {Gap} [gap] */
  #take(messages, cursor, gap) {
    const place = this.#place;
    // A cursor that goes back is that of an answer which others needed, unless the database is another one.
    if (gap || !(compare(cursor, place.read) < 0)) place.read = cursor;
    if (gap) place.queue.push({ gap });
    place.queue.push(...messages);
    if (place.queue.length || !place.waits) this.#resume();
    else this.#pass().catch((error) => this.#end(error));
  }

  #resume() {
    this.#place.waits = false;
    this.#wake();
  }

  /** @param {any} [error] */
  #end(error) {
    if (this.#place.over) return;
    this.#place.over = true;
    this.#error = error;
    this.#options.signal?.removeEventListener("abort", this.#abort);
    this.#door.leave(this.#place);
    this.#resume();
  }

  /** @type {State | undefined} */
  #state;

  /** @param {State} state  @param {Retry} [retry] */
  #tell(state, retry) {
    const { onState, onError } = this.#options;
    if (retry) onError?.(retry.error, retry.delay);
    if (retry || state !== this.#state) onState?.(state, retry);
    this.#state = state;
    return Boolean(onState || onError);
  }
}

/**
 * What a subscription asks of its connection.
 * @typedef {{ url(items: string[]): string, enter(place: Place): void, leave(place: Place): void, changed(): void }} Door
 */

/**
 * All subscriptions of one service and one user. Those that have everything wait together, with one poll: a list has one
 * cursor whatever is in it. Those that are behind (new ones, slow ones, all after a failure) are looked after beside it,
 * by requests that do not wait, one at a time. So a connection has two requests under way at the most.
 */
export class Connection {
  /** @type {State} */
  state = "connecting";
  /** @type {Connecting} */
  #options;
  #credential;
  /** Headers of the user's. */
  #given;
  #line = new Line();
  /** @type {Set<Place>} */
  #places = new Set();
  /** The first is for those that are behind, the others for those that wait: one, unless one list cannot hold them. */
  #loops = [new Loop()];
  /** @type {Set<(state: State, retry?: Retry) => void>} */
  #listeners = new Set();
  /** Ends with the last subscription, and with it what listens to the page. */
  #life = new AbortController();
  /** @type {Tabs | undefined} */
  #tabs;
  #closed = false;
  #hidden = false;
  #failures = 0;
  /** @type {number | undefined} when the first of them was */
  #lost;
  /** Whether a new token has been asked for since the last answer. */
  #renewed = false;
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
  /** @type {Door} */
  #door = {
    url: (items) => address(this.#options.url, items),
    enter: (place) => this.#enter(place),
    leave: (place) => this.#leave(place),
    changed: () => this.#changed(),
  };

  constructor(/** @type {Connecting} */ options) {
    this.#options = options;
    this.#credential = new Credential(options);
    this.#given = sendable(options, address(options.url, ["a"])); // both throw where they are none
  }

  /** Whether it has no subscriptions. */
  get idle() {
    return !this.#places.size;
  }

  /**
   * Follows topics and patterns. Without a handler the messages are iterated over. With one, it is called with each
   * message, one after the other, and awaited; what is returned ends that. The cursor passes a message when the handler
   * has returned; one that throws ends its subscription, and `onError` is told.
   *
   * @template [T=any]
   * @overload
   * @param {string | string[]} topics  @param {Following} [options]  @returns {Subscription<T>}
   */
  /**
   * @template [T=any]
   * @overload
   * @param {string | string[]} topics  @param {(message: Message<T>) => unknown} handler  @param {Following} [options]
   * @returns {() => void}
   */
  /** @param {string | string[]} topics  @param {any} [handler]  @param {Following} [options]  @returns {any} */
  subscribe(topics, handler, options = {}) {
    if (typeof handler !== "function") return new Subscription(topics, handler ?? {}, this.#door);
    const messages = new Subscription(topics, options, this.#door);
    const { onError = this.#options.onError ?? console.error } = options;
    const handle = async () => {
      for await (const message of messages) await handler(message);
    };
    handle().catch((error) => onError(error));
    return () => void messages.return();
  }

  /**
   * Publishes one message; resolves with its id once it is stored. A failure throws and is not retried here: only the
   * caller knows whether the message may be stored twice. (A 401 is: nothing was stored, and `token` may have a new one.)
   *
   * Blobs, buffers, and strings with a `contentType` (such as "text/plain") are sent as they are; all else as JSON. What
   * JSON would change or leave out is a TypeError.
   *
   * With an `idempotencyKey`, such as `crypto.randomUUID()`, it can be sent again: it is stored once.
   *
   * @param {string} topic  @param {any} data
   * @param {Publishing & Sending & { contentType?: string }} [options]
   * @returns {Promise<{ id: string, topic: string }>}
   */
  async publish(topic, data, { title, click, priority, tags, contentType, ...sending } = {}) {
    if (Array.isArray(tags) && tags.some((tag) => String(tag).includes(","))) throw new TypeError("a tag has no comma");
    const { body, type } = written(data, contentType);
    // Display fields travel in the query, because a header can only contain Latin-1.
    const url = address(this.#options.url, [topic]) + query({ title, click, priority, tags });
    return this.#request(url, ({ id }) => typeof id === "string", sending, body, type);
  }

  /**
   * Publishes up to 1000 messages, all or none; resolves with their ids.
   *
   * @param {(Publishing & { topic: string, data: any })[]} messages  @param {Sending} [sending]
   * @returns {Promise<string[]>}
   */
  async publishAll(messages, sending = {}) {
    const { body, type } = written(messages);
    const url = address(this.#options.url, ["a"]).replace(/topics\/a$/, "messages");
    return (await this.#request(url, ({ ids }) => Array.isArray(ids), sending, body, type)).ids;
  }

  /**
   * A page of what was: the `last` messages (100 unless given, 1000 at most) before a cursor, or the newest, oldest
   * first. `before` of the answer leads to the page before it; null is the beginning.
   *
   * @template [T=any]
   * @param {string | string[]} topics  @param {{ before?: string, last?: number, signal?: AbortSignal }} [options]
   * @returns {Promise<{ messages: Message<T>[], before: string | null }>}
   */
  async history(topics, { before = "latest", last, signal } = {}) {
    const url = address(this.#options.url, [topics].flat()) + query({ before, limit: last });
    return this.#request(url, (answer) => Array.isArray(answer.messages) && "before" in answer, { signal });
  }

  /** Calls `listener` when the state changes, and before each pause; what is returned ends that. */
  onState(/** @type {(state: State, retry?: Retry) => void} */ listener) {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Makes the next attempt now, though not before the service wants it. */
  retryNow() {
    this.#failures = 0;
    this.#lost = undefined;
    this.#again();
  }

  /** Ends all subscriptions. */
  close() {
    this.#closed = true;
    for (const { end } of this.#places) end();
    this.#tell([], "closed");
  }

  #enter(/** @type {Place} */ place) {
    if (this.#closed) return place.end();
    if (this.idle) this.#listen();
    this.#places.add(place);
  }

  #leave(/** @type {Place} */ place) {
    this.#places.delete(place);
    if (this.idle) {
      this.#life.abort();
      this.#part();
      for (const loop of this.#loops) loop.interrupt();
    } else this.#changed();
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
      if (hidden) this.#part();
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

  /** All are asked for at once, without waiting: it yields a cursor, and a sign that all is well. */
  #again() {
    for (const place of this.#places) place.fresh = false;
    for (const loop of this.#loops) loop.interrupt();
    this.#changed();
  }

  /** A subscription has come, has gone, or waits for its next message. */
  #changed() {
    const waiting = this.#waiting();
    this.#tabs?.tell([...this.#places].filter(({ fresh }) => fresh));
    while (this.#loops.length <= waiting.length) this.#loops.push(new Loop());
    this.#loops.forEach((loop, at) => {
      const wanted = at ? (waiting[at - 1] ?? []) : [...this.#places];
      const asked = [...loop.asked.keys()];
      const none = !asked.some((place) => wanted.includes(place));
      if (asked.length && (none || (at && !wanted.every((place) => loop.joined(place))))) loop.interrupt();
      this.#run(loop);
    });
  }

  /** Those that have everything, in lists as long as the service takes them: one, mostly. */
  #waiting() {
    // What is slow leaves the others: what comes next is kept by the service.
    for (const place of this.#places) if (place.queue.length > 2 * LIMIT) place.fresh = false;
    if (this.#shares && !this.#tabs?.leads) return []; // another tab polls
    const places = [...this.#places, ...(this.#tabs?.others() ?? [])].filter(({ fresh }) => fresh);
    if (fit(places)) return places.length ? [places] : [];
    /** @type {Place[][]} */
    const lists = [];
    for (const place of places) {
      const list = lists.find((each) => fit([...each, place]));
      if (list) list.push(place);
      else lists.push([place]);
    }
    return lists;
  }

  /** Whether a poll of this browser serves all its tabs. */
  get #shares() {
    return this.#options.share && globalThis.navigator?.locks && globalThis.BroadcastChannel;
  }

  /** Joins the tabs that show the same user the same service. */
  #join(/** @type {string | undefined} */ token) {
    const name = `${this.#door.url(["_"])} ${this.#options.share} ${user(token)}`;
    if (this.#tabs?.name === name) return;
    this.#part();
    this.#tabs = new Tabs(name, () => this.#changed(), (said) => this.#hear(said));
  }

  #part() {
    this.#tabs?.part();
    this.#tabs = undefined;
  }

  /** What the tab that leads passes on: an answer, or that something is wrong. Returns whether it is for all of ours. */
  #hear(/** @type {any} */ { items, after, text, wrong }) {
    const answer = json(text);
    if (wrong || answer.gap) {
      (wrong === "away" ? behind : alone)(this.#places);
      return !wrong;
    }
    let all = true;
    const loop = new Loop();
    for (const place of this.#places) {
      if (!place.fresh) continue;
      if (!place.items.every((item) => items.includes(item))) {
        all = false;
        continue;
      }
      const { read } = place;
      // What does not go on where it is makes it ask once for itself.
      if (compare(after, read) <= 0 && compare(answer.cursor, read) >= 0) loop.asked.set(place, read);
      else place.fresh = false;
    }
    this.#settle(loop, { most: LIMIT, limit: Infinity, after }, { ...answer, text }, true);
    return all;
  }

  /** Whom to ask for next. */
  #choose(/** @type {Loop} */ loop) {
    const at = this.#loops.indexOf(loop);
    if (at) {
      const list = this.#waiting()[at - 1] ?? [];
      return list.some(({ waits }) => waits) ? list : [];
    }
    const behind = [...this.#places].filter(({ fresh, waits }) => !fresh && waits);
    const [first] = behind;
    const begins = (/** @type {Place} */ { alone, begin, read }) => alone || (begin && read === undefined);
    if (!first || begins(first)) return behind.slice(0, 1);
    const chosen = [];
    for (const place of behind)
      if (place.read === first.read && !begins(place) && (!chosen.length || fit([...chosen, place]))) chosen.push(place);
    return chosen;
  }

  async #run(/** @type {Loop} */ loop) {
    if (loop.runs) return;
    loop.runs = true;
    await null; // all that subscribe now are asked for at once
    for (;;) {
      if (this.#hidden) this.#pause(loop, FOREVER);
      if (loop.paused) await loop.paused;
      else {
        const chosen = this.#choose(loop);
        if (!chosen.length) break;
        await this.#poll(loop, chosen);
      }
    }
    loop.runs = false;
  }

  /** One poll, and the pause after it, if it needs one. */
  async #poll(/** @type {Loop} */ loop, /** @type {Place[]} */ places) {
    const waits = loop !== this.#loops[0];
    const longest = Math.min(...places.map(({ wait }) => wait ?? Infinity));
    const most = Math.min(...places.map(({ limit }) => limit));
    /** @type {Attempt} */
    const attempt = {
      wait: waits ? this.#line.wait(longest) : 0,
      most,
      limit: Math.min(this.#line.limit, most),
      after: least(places),
    };
    loop.ask(places, attempt.after);
    try {
      const answer = await this.#ask(loop, attempt);
      if (!answer) return;
      if (attempt.headers && attempt.wait !== undefined) this.#headers = answer.preferred;
      // It did not know the cursor.
      if (attempt.headers && !this.#headers) return behind(loop.asked.keys());
      this.#check(loop, attempt, answer);
      this.#failures = 0;
      this.#lost = undefined;
      this.#renewed = false;
      if (this.#shares) this.#join(attempt.token);
      if (waits) this.#tabs?.say({ items: [...loop.items], after: attempt.after, text: answer.text });
      else if (answer.gap?.reason === "reset") this.#tabs?.say({ wrong: "reset" });
      this.#settle(loop, attempt, answer);
      if (answer.messages.length) return;
      if (answer.retryAfter) this.#pause(loop, answer.retryAfter + backoff(0), answer.retryAfter);
      else if (loop.idle) this.#pause(loop, backoff(loop.idle));
    } catch (error) {
      this.#failed(loop, attempt, error);
    } finally {
      loop.asked.clear();
      this.#changed();
    }
  }

  /** Throws where `answer` is an old one that came again. */
  #check(/** @type {Loop} */ loop, /** @type {Attempt} */ attempt, /** @type {any} */ { messages, cursor, gap, retryAfter: asked, status }) {
    const { after = "" } = attempt;
    const repeated =
      gap?.reason === "reset"
        ? cursor === after
        : compare(cursor, after) < 0 || messages.some((/** @type {Message} */ { id }) => compare(id, after) <= 0);
    const idle = attempt.wait !== 0 && !messages.length && cursor === after && !asked;
    // Once it may be that access has changed. What comes again is an answer that a cache has.
    const soon = Math.min(AT_ONCE, (attempt.wait ?? LONGEST_WAIT) * 500);
    loop.idle = idle && elapsed(attempt.sent) < soon ? loop.idle + 1 : 0;
    if (!repeated && loop.idle < 2) return;
    loop.idle = 0;
    this.#headers = false;
    const detail = "Something between here and the service, perhaps a cache, gives an old answer again.";
    throw new NotifierError(status, { code: STALE, detail });
  }

  /** An answer has come for the subscriptions of `loop`. */
  #settle(/** @type {Loop} */ loop, /** @type {Attempt} */ attempt, /** @type {any} */ answer, more = false) {
    this.#tell(loop.asked.keys(), "live");
    try {
      this.#handOut(loop, attempt, answer, more || loop.asked.size > 1);
    } catch (error) {
      for (const place of loop.asked.keys()) place.end(error); // of the user's own functions
    }
  }

  /**
   * Gives each subscription what concerns it.
   *
   * @param {Loop} loop  @param {Attempt} attempt  @param {any} answer  @param {boolean} several
   */
  #handOut(loop, attempt, { messages, cursor, gap, text }, several) {
    const { asked } = loop;
    // Which of them has lost something, or gone back, each is told when it asks alone, from a cursor of its own.
    if (gap && several) return alone(asked.keys());
    if (gap?.reason === "reset") alone(this.#places);
    const { parse } = this.#options;
    const shown = parse && messages.length ? parse(text).messages : messages;
    const full = messages.length >= attempt.limit;
    const ahead = [...this.#places].some(({ fresh, read }) => fresh && compare(read, cursor) > 0);
    for (const [place, after] of asked) {
      // It has ended, or another answer has come first.
      if (place.over || place.read !== after) continue;
      place.alone = false;
      place.fresh = !full && (loop !== this.#loops[0] || !ahead || cursor === after);
      const its = (/** @type {any} */ _, /** @type {number} */ at) =>
        !several || (place.pattern.test(messages[at].topic) && !(compare(messages[at].id, after) <= 0));
      // Its turn to be asked for comes after that of the others.
      if (this.#places.delete(place)) this.#places.add(place);
      place.take(shown.filter(its), cursor, gap);
    }
  }

  /** Ends the subscriptions asked for with `error` where nothing else can be done; else they ask again after a pause. */
  #failed(/** @type {Loop} */ loop, /** @type {Attempt} */ attempt, /** @type {any} */ error) {
    const asked = [...loop.asked.keys()];
    const renewable = this.#credential.refused(error, attempt.token);
    if (renewable && !this.#renewed) {
      this.#renewed = true;
      return;
    }
    const ours = error instanceof NotifierError && error.code !== FOREIGN;
    // A poll that shall not park takes so long only if it is not understood.
    if (!ours && attempt.wait === 0 && elapsed(attempt.sent) > CUT) this.#headers ??= false;
    if (ours && !error.temporary && !renewable) {
      // One of several that is not allowed must not take the others with it.
      if (asked.length > 1 && error.status !== 401) {
        alone(asked);
        this.#tabs?.say({ wrong: "refused" });
        this.#tabs?.forget();
      } else for (const place of asked) place.end(error);
      return;
    }
    behind(asked);
    if (!ours && this.#line.broke(attempt)) return; // a quick one shows whether anybody is there
    const now = performance.now();
    this.#lost ??= now;
    const floor = error.retryAfter || 0;
    const cap = !ours && now - this.#lost < OUTAGE ? OUTAGE_CAP : BACKOFF_CAP;
    const delay = floor + backoff(this.#failures++, undefined, cap);
    this.#tell(asked, "retrying", { error, delay });
    for (const each of new Set([this.#loops[0], loop])) this.#pause(each, delay, floor);
    if (loop !== this.#loops[0]) this.#tabs?.say({ wrong: "away" });
  }

  /** One request: the answer, or undefined when it was interrupted. */
  async #ask(/** @type {Loop} */ loop, /** @type {Attempt} */ attempt) {
    const request = new AbortController();
    let interrupted = false;
    loop.abort = () => {
      interrupted = true;
      request.abort();
    };
    const late = (/** @type {boolean} */ slept) => {
      attempt.silent = true;
      if (slept) this.#again();
      else request.abort(new Error("no answer in time"));
    };
    let disarm = deadline((attempt.wait ?? LONGEST_WAIT) * 1_000 + LATE, late);
    try {
      const aborted = new Promise((_, reject) => request.signal.addEventListener("abort", reject));
      // A function may take forever.
      attempt.token = await Promise.race([this.#credential.token(), aborted]);
      const { limit, after = this.#asked } = attempt;
      const grows = this.#asked === undefined || after === this.#asked || compare(after, this.#asked) > 0;
      if (!grows) this.#nonce = nonce();
      this.#asked = after;
      const [place, another] = loop.asked.keys();
      // One that begins keeps its URL; where there are several, none does.
      const more = { ...(another ? {} : place.begin), limit: limit === LIMIT ? undefined : limit, nonce: this.#nonce };
      const headers = this.#sent(attempt.token);
      attempt.headers = this.#headers !== false;
      if (attempt.headers) {
        // Only the cursor changes from poll to poll: that is how the server recognises them. And browsers keep the answer
        // to a preflight for one URL. (`cache: "no-store"` in place of a nonce costs a preflight each time.)
        if (attempt.after !== undefined) headers["Last-Event-ID"] = encodeURIComponent(attempt.after);
        if (attempt.wait !== undefined) headers.Prefer = `wait=${attempt.wait}`;
        if (attempt.wait === 0 && this.#loops.some((other) => other !== loop && other.asked.size)) more.nonce += "-";
      } else Object.assign(more, { after: attempt.after, wait: attempt.wait, nonce: nonce() });
      // An answer from something in between may have got into the cache.
      const cache = this.#failures ? "reload" : "default";
      attempt.sent = performance.now();
      const url = this.#door.url([...loop.items]) + query(more);
      const response = await send(url, { headers, cache, signal: request.signal }, this.#options.fetch);
      if (!response.ok) throw await NotifierError.from(response);
      attempt.begun = performance.now();
      const progress = () => {
        disarm();
        disarm = deadline(SILENCE, late);
      };
      const text = await whole(response, progress);
      const answer = json(text);
      if (!Array.isArray(answer?.messages) || typeof answer.cursor !== "string") throw foreign(response);
      this.#line.carried(attempt, answer.messages.length);
      const preferred = response.headers.has("preference-applied");
      return { ...answer, text, preferred, status: response.status, retryAfter: retryAfter(response.headers) };
    } catch (error) {
      if (interrupted) return undefined;
      throw request.signal.aborted ? request.signal.reason : error;
    } finally {
      disarm();
    }
  }

  /** Before the next request. An interruption ends it early, though not before the `floor` that the server asked for. */
  #pause(/** @type {Loop} */ loop, /** @type {number} */ ms, floor = 0) {
    if (this.idle) return;
    const earliest = Date.now() + floor;
    const pause = new Promise((resolve) => {
      const over = () => {
        clearTimeout(timer);
        if (loop.paused === pause) loop.paused = undefined;
        resolve(undefined);
      };
      const timer = setTimeout(over, ms);
      loop.wake = () => (this.idle || Date.now() >= earliest) && over();
    });
    loop.paused = pause;
  }

  /** @param {Iterable<Place>} places  @param {State} state  @param {Retry} [retry] */
  #tell(places, state, retry) {
    const { onError } = this.#options;
    const listening = [...places].filter(({ tell }) => tell(state, retry)).length || this.#listeners.size;
    if (retry) (onError ?? (listening ? () => {} : warn))(retry.error, retry.delay);
    if (state === this.state && !retry) return;
    this.state = state;
    for (const listener of this.#listeners) listener(state, retry);
  }

  /** The headers that every request has. @returns {Record<string, string>} */
  #sent(/** @type {string | undefined} */ token) {
    return { ...this.#given, ...(token && { Authorization: `Bearer ${token}` }) };
  }

  /**
   * A request whose answer is `right`, or an error. Without an answer the outcome of one with a body is unknown.
   *
   * @param {string} url  @param {(answer: any) => boolean} right  @param {Sending} sending
   * @param {any} [body]  @param {string} [type]  @returns {Promise<any>}
   */
  async #request(url, right, { signal, idempotencyKey: key }, body, type) {
    const { fetch, parse = JSON.parse } = this.#options;
    const control = new AbortController();
    const abort = () => control.abort(signal?.reason);
    const late = body === undefined ? FOREIGN : UNKNOWN;
    const detail = `No answer came in ${PATIENCE / 1_000} s.${body === undefined ? "" : DOUBT}`;
    const disarm = deadline(PATIENCE, () => control.abort(new NotifierError(0, { code: late, detail })));
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    try {
      for (let attempt = 0; ; attempt += 1) {
        const aborted = new Promise((_, reject) => control.signal.addEventListener("abort", reject));
        const token = await Promise.race([this.#credential.token(), aborted]);
        const post = body === undefined ? {} : { method: "POST", body };
        const headers = { ...this.#sent(token), ...(type && { "Content-Type": type }), ...(key && { "Idempotency-Key": key }) };
        const response = await send(url, { ...post, headers, signal: control.signal }, fetch);
        if (response.ok) {
          const text = await response.text();
          const answer = json(text);
          if (answer && right(answer)) return body === undefined ? parse(text) : answer;
          throw foreign(response, late);
        }
        const error = await NotifierError.from(response);
        if (this.#credential.refused(error, token) && attempt === 0) continue;
        // What says 5xx may only have lost patience.
        throw error.code === FOREIGN && error.status >= 500 ? foreign(response, late) : error;
      }
    } catch (error) {
      throw control.signal.aborted ? control.signal.reason : error;
    } finally {
      disarm();
      signal?.removeEventListener("abort", abort);
    }
  }
}

/**
 * Tabs of one user that have one poll. One of them leads: it holds a lock, polls for all, and passes on each answer with
 * the cursor that it goes on from. All have cursors of their own, and take only what goes on from there. So nothing is
 * lost or repeated where none leads, or two do, or a tab has slept: only requests are.
 */
class Tabs {
  leads = false;
  name;
  #id = nonce();
  #channel;
  #life = new AbortController();
  #changed;
  /** What the other tabs follow, and when they said so. @type {Map<string, { place: Place, at: number }>} */
  #others = new Map();
  /** What this one said that it follows, and when. */
  #told = "";
  #toldAt = 0;
  #heardAt = performance.now();

  /** @param {string} name  @param {() => void} changed  @param {(said: any) => boolean} hear  whether all is in it */
  constructor(name, changed, hear) {
    this.name = name;
    this.#changed = changed;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => {
      if (data.tab) return this.#follows(data);
      this.#heardAt = performance.now();
      // It must know all that this one follows.
      if (data.leads || !hear(data)) this.#told = "";
      changed();
    };
    // Only a tab that is looked at takes the lead from one that has stopped: others may have stopped, too.
    const timer = setInterval(() => {
      const mute = elapsed(this.#heardAt) > MUTE && globalThis.document?.visibilityState === "visible";
      if (!this.leads && mute) this.#lead({ steal: true });
    }, WATCH);
    this.#life.signal.addEventListener("abort", () => clearInterval(timer));
    this.#lead({ signal: this.#life.signal });
  }

  /** Leads as soon as no other tab does, until this one parts or another takes the lead. */
  async #lead(/** @type {LockOptions} */ options) {
    const { signal } = this.#life;
    this.#heardAt = performance.now();
    /** @type {any} */
    let lost;
    await navigator.locks
      .request(this.name, options, () => {
        if (signal.aborted) return;
        this.leads = true;
        this.say({ leads: true });
        this.#changed();
        return new Promise((resolve) => signal.addEventListener("abort", resolve));
      })
      .catch((error) => (lost = error)); // parted, or another tab has the lead now
    if (signal.aborted) return;
    this.leads = lost?.name !== "AbortError"; // where locks are forbidden, as in a sandbox, each leads itself
    this.#told = "";
    this.#changed();
    if (!this.leads && !options.steal) this.#lead(options);
  }

  #follows(/** @type {any} */ { tab, items, read }) {
    if (items.length) {
      const nothing = () => false;
      const take = (/** @type {any} */ _, /** @type {string} */ cursor) => void (place.read = cursor);
      const fixed = { items, read, queue: [], pattern: /^$/, over: false, waits: true, alone: false, limit: LIMIT };
      /** @type {Place} */
      const place = { ...fixed, fresh: true, wait: undefined, take, end: nothing, tell: nothing };
      this.#others.set(tab, { place, at: performance.now() });
    } else this.#others.delete(tab);
    this.#changed();
  }

  /** What the other tabs follow. */
  others() {
    for (const [tab, { place, at }] of this.#others) {
      place.fresh = true; // it looks after itself
      if (elapsed(at) > GONE) this.#others.delete(tab);
    }
    return [...this.#others.values()].map(({ place }) => place);
  }

  forget() {
    this.#others.clear();
  }

  /** Tells the tab that leads what this one follows. */
  tell(/** @type {Place[]} */ places) {
    const items = [...new Set(places.flatMap((place) => place.items))];
    const told = items.join();
    if (this.leads || (told === this.#told && elapsed(this.#toldAt) < TELL_AGAIN)) return;
    this.#told = told;
    this.#toldAt = performance.now();
    this.say({ tab: this.#id, items, read: least(places) });
  }

  say(/** @type {any} */ what) {
    if (!this.#life.signal.aborted) this.#channel.postMessage(what);
  }

  part() {
    this.say({ tab: this.#id, items: [] });
    this.#life.abort();
    this.#channel.close();
  }
}

/** Who a token is for: its claims but for its times, or the token itself, in a form that it cannot be read from. */
function user(token = "") {
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

/** The least of their cursors. */
function least(/** @type {Place[]} */ places) {
  const cursors = places.map(({ read }) => read);
  return cursors.reduce((one, other) => (compare(other, one) < 0 ? other : one), cursors[0]);
}

/** One of the polls of a connection: what it asks for now, and how it is ended early. */
class Loop {
  runs = false;
  /** Whom the request under way is for, and up to where each of them has read. @type {Map<Place, string | undefined>} */
  asked = new Map();
  items = new Set();
  /** @type {string | undefined} */
  after;
  /** How many answers in a row came at once with nothing new. */
  idle = 0;
  /** @type {Promise<unknown> | undefined} */
  paused;
  wake = () => {};
  abort = () => {};

  /** Ends the request or the pause under way. */
  interrupt() {
    this.abort();
    this.wake();
  }

  /** @param {Place[]} places  @param {string | undefined} after */
  ask(places, after) {
    this.asked = new Map(places.map((place) => [place, place.read]));
    this.items = new Set(places.flatMap(({ items }) => items));
    this.after = after;
  }

  /** Whether the request under way is for `place` too, or can be. */
  joined(/** @type {Place} */ place) {
    if (this.asked.has(place)) return true;
    if (!place.items.every((item) => this.items.has(item)) || !(compare(place.read, this.after) >= 0)) return false;
    this.asked.set(place, place.read);
    return true;
  }
}

/** Makes them ask at once, before they wait again. */
function behind(/** @type {Iterable<Place>} */ places) {
  for (const place of places) place.fresh = false;
}

/** Makes each ask for itself, because what was said to several concerns one of them. */
function alone(/** @type {Iterable<Place>} */ places) {
  for (const place of places) place.alone = !(place.fresh = false);
}

/** Whether one poll may ask for all of `places`. */
function fit(/** @type {Place[]} */ places) {
  const items = [...new Set(places.flatMap((place) => place.items))];
  const segments = items.filter((item) => item.includes("*")).join("/").split("/");
  return items.length <= ITEMS && segments.length <= SEGMENTS;
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

/**
 * One poll: how many seconds it may wait (what the server thinks best, unless there is a number), how many messages
 * its answer may have, the cursor that it goes on from, the token that it showed, whether headers said so, when it was
 * sent, when its answer began, and whether it was given up.
 * @typedef {object} Attempt
 * @property {number} [wait]
 * @property {number} most  of messages that those who are asked for want
 * @property {number} limit  of messages that it asks for
 * @property {string} [after]
 * @property {string} [token]
 * @property {boolean} [headers]
 * @property {number} [sent]
 * @property {number} [begun]
 * @property {boolean} [silent]
 */

/** What gets through to the service and back: how long a poll may park, and how much an answer may hold. */
class Line {
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
  carried(/** @type {Attempt} */ { wait, begun = 0, limit, most }, /** @type {number} */ count) {
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
  broke(/** @type {Attempt} */ { wait = LONGEST_WAIT, sent, begun, silent, limit }) {
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

/** What a request shows of its caller. */
class Credential {
  #source;
  /** @type {string | undefined} what `#source` is, or returned */
  #token;
  /** @type {string | undefined} */
  #refused;

  constructor(/** @type {Connecting} */ { key, token = key }) {
    this.#source = token;
    if (typeof token !== "function") this.#token = checked(token);
  }

  /** @returns {Promise<string | undefined>} */
  async token() {
    if (typeof this.#source === "function") this.#token ??= checked(await this.#source(this.#refused));
    return this.#token;
  }

  /** Whether `error` refuses `token`, and there may be another. (A 429 may do so too: it is said after many a 401.) */
  refused(/** @type {any} */ error, /** @type {string | undefined} */ token) {
    if (typeof this.#source !== "function" || ![401, 429].includes(error?.status)) return false;
    if (token === this.#token) {
      this.#refused = token;
      this.#token = undefined;
    }
    return error.status === 401;
  }
}

/** No header can hold a login page in the place of a token: that would look like a network that fails. */
function checked(/** @type {string | null | undefined} */ given) {
  const token = String(given ?? "").trim();
  if (/^[!-~]*$/.test(token)) return token || undefined;
  throw new TypeError("what the option token is, or returns, is not a token: it has spaces or is not ASCII");
}

/**
 * The headers of the user's, each of which can be sent: no request fails later because of one, or goes without it.
 *
 * @param {Connecting} options  @param {string} url
 */
function sendable({ headers, key, token = key }, url) {
  const given = new Headers(headers); // throws for what is no header
  const { headers: sent } = new Request(url, { headers: given }); // browsers leave out what pages may not set
  for (const [name] of given)
    if (!sent.has(name) || OURS.test(name) || (token && name === "authorization"))
      throw new TypeError(`the header ${name} cannot be given: the browser or this client sets it`);
  return Object.fromEntries(given);
}

/**
 * What is sent for `data`, and its type.
 *
 * @param {any} data  @param {string} [contentType]  @returns {{ body: any, type: string }}
 */
function written(data, contentType) {
  if (data instanceof Blob || data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
    const { type } = /** @type {any} */ (data);
    return { body: data, type: contentType || type || "application/octet-stream" };
  }
  if (contentType && typeof data === "string") {
    if (/\p{Surrogate}/u.test(data)) throw new TypeError("the text has half a character, a lone surrogate");
    return { body: data, type: contentType };
  }
  if (contentType && !/[/+]json *(;|$)/i.test(contentType))
    throw new TypeError(`data of the type ${contentType} is given as text or bytes`);
  const body = JSON.stringify(data, faithful);
  if (body === undefined) throw new TypeError("this cannot be written as JSON");
  return { body, type: contentType || "application/json" };
}

/**
 * For JSON.stringify: TypeError for what it would change or leave out (a Map becomes {}, NaN becomes null).
 *
 * @this {any}  @param {string} key  @param {any} value
 */
function faithful(key, value) {
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  const fits =
    kind === "Undefined"
      ? !Array.isArray(this) // a member without a value is none
      : kind === "Number"
        ? Number.isFinite(Number(value))
        : kind === "Object"
          ? !(value[Symbol.iterator] || value[Symbol.asyncIterator])
          : ["Array", "String", "Boolean", "Null"].includes(kind);
  if (fits) return value;
  const what = `${kind === "Number" ? value : kind}${key && ` as "${key}"`}`;
  throw new TypeError(`JSON cannot hold ${what}: give JSON values, text with its contentType, or bytes`);
}

/**
 * A request. Of one to another origin that fails, browsers do not tell why; but whether a server runs, they do.
 *
 * @param {string} url  @param {RequestInit} init
 */
async function send(url, init, fetch = globalThis.fetch) {
  try {
    // What is redirected goes elsewhere, perhaps to a login; and of a publish it makes a poll.
    return await fetch(url, { ...init, redirect: "manual" });
  } catch (error) {
    const { origin } = globalThis; // of a page
    const [service] = url.split("/v1/");
    if (!origin || url.startsWith(`${origin}/`) || init.signal?.aborted) throw error;
    const signal = init.body ? AbortSignal.timeout(LATE) : init.signal;
    await fetch(`${service}/healthz`, { mode: "no-cors", cache: "no-store", signal }).catch(() => Promise.reject(error));
    const remedy = `perhaps its NOTIFIER_ORIGINS must have ${origin === "null" ? "*" : origin}`; // null: of a file
    throw new Error(`${service} runs, but this page gets no answer from it: ${remedy}`, { cause: error });
  }
}

/**
 * The URL of topics. A segment that URLs resolve away is refused here, because the request would go elsewhere.
 *
 * @param {string | URL | undefined} url  @param {string[]} items
 */
function address(url, items) {
  const list = items.join(",");
  if (!list || /(^|[/,])\.{1,2}([/,]|$)/.test(list)) throw new TypeError(`"${list}" names no topic`);
  const base = HOME ?? globalThis.location?.href;
  const { protocol, origin, pathname, username, password } = new URL(url ?? (HOME ? "." : "none:"), base);
  if (!protocol.startsWith("http")) throw new TypeError('say where the service is: { url: "http://..." }');
  if (username || password) throw new TypeError("a key in the URL would end up in logs: give it as the option key");
  const path = encodeURIComponent(list).replaceAll("%2F", "/").replaceAll("%2C", ",");
  return `${origin}${pathname.replace(/\/*$/, "")}/v1/topics/${path}`;
}

/** The fields that have a value, as a query string. */
function query(/** @type {Record<string, any>} */ fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return given.map(([name, value], at) => `${at ? "&" : "?"}${name}=${encodeURIComponent(value)}`).join("");
}

/** What `text` means as JSON; undefined where it is none. */
function json(/** @type {string} */ text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The text of an answer. Each piece that comes is `progress`: a slow line is not one that is dead. */
async function whole(/** @type {Response} */ { body }, /** @type {() => void} */ progress) {
  const reader = body?.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let bytes = PIECE; // the head is progress too
  for (;;) {
    if (bytes >= PIECE) {
      bytes = 0;
      progress();
    }
    const { value } = (await reader?.read()) ?? {};
    if (!value) return text + decoder.decode();
    bytes += value.length;
    text += decoder.decode(value, { stream: true });
  }
}

/**
 * How two cursors are ordered: as numbers, below, at or above 0. NaN where one is none, such as "latest".
 *
 * @param {string} [one]  @param {string} [other]
 */
function compare(one = "", other = "") {
  if (!/^\d+$/.test(one) || !/^\d+$/.test(other)) return NaN;
  return one.length - other.length || (one < other ? -1 : Number(one > other));
}

/** Milliseconds that have passed. */
const elapsed = (/** @type {number | undefined} */ then) => performance.now() - (then ?? NaN);
const nonce = () => Math.random().toString(36).slice(2);
const warn = (/** @type {Error} */ error) => console.warn("Trying again after an error:", error);

/**
 * Calls `late` once `ms` have passed on either clock, because timers stand still while a machine sleeps, and says
 * whether the machine slept. Returns a function that cancels it.
 *
 * @param {number} ms  @param {(slept: boolean) => void} late
 */
function deadline(ms, late) {
  const wall = Date.now();
  const steady = performance.now();
  const timer = setInterval(() => {
    const passed = Math.max(Date.now() - wall, performance.now() - steady);
    if (passed >= ms) late(passed >= ms + SLEPT);
  }, 5_000);
  return () => clearInterval(timer);
}
