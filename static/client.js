/**
 * Notifier's client for browsers, Node 18, Deno and Bun: one file, nothing to install.
 *
 *     import { subscribe, publish } from "/client.js";
 *     for await (const message of subscribe("orders/*")) console.log(message.topic, message.data);
 *
 * @typedef {object} Message
 * @property {string} id  also a cursor: `subscribe(topics, { after: message.id })` goes on behind it
 * @property {string} topic
 * @property {string} time  RFC 3339
 * @property {any} data  JSON; text as a string; other bytes as base64, and `encoding` says so
 * @property {string} [content_type]  unless it is application/json
 * @property {"base64"} [encoding]
 * @property {string} [title]
 * @property {string} [click]
 * @property {number} [priority]  1 to 5
 * @property {string[]} [tags]
 *
 * @typedef {{ reason: "retention" | "reset", after: string }} Gap
 * @typedef {"connecting" | "live" | "retrying"} State
 *
 * @typedef {string | ((refused?: string) => string | undefined | Promise<string | undefined>)} Token
 *
 * @typedef {object} Connection
 * @property {string | URL} [url]  the service; unless given, where this module came from
 * @property {string} [key]  a key or a token, sent as a bearer token
 * @property {Token} [token]  the same, or a function that returns one: it is called for the first request, and after a
 *   401 again, with the token that was refused; what it returns is used until then
 * @property {AbortSignal} [signal]
 * @property {typeof fetch} [fetch]
 *
 * @typedef {object} Following  of several beginnings the first counts; without one, what is new from the first poll on
 * @property {string} [after]  a cursor or message id, "earliest" or "latest"
 * @property {string} [since]  such as "10m", or RFC 3339
 * @property {number} [last]  the newest so many, then whatever comes
 * @property {number} [wait]  seconds that a poll may park, 1 to 28. Less is found out where something in between is
 *   impatient; unless given, the server decides
 * @property {number} [limit]  most messages in one answer, 1 to 1000, by default 100. A slow line is asked for fewer
 * @property {(text: string) => any} [parse]  reads an answer in the place of JSON.parse, which rounds large numbers
 * @property {(gap: Gap) => unknown} [onGap]  messages were lost; awaited before the next message is handed out
 * @property {(error: Error, delay: number) => void} [onError]  an error that is tried again after `delay` milliseconds;
 *   without this and `onState`, errors go to the browser's console
 * @property {(state: State, retry?: { error: Error, delay: number }) => void} [onState]
 */

const BACKOFF = 500;
const BACKOFF_CAP = 30_000;
const OUTAGE_CAP = 3_000; // while no Notifier answers: it must not take long to notice that one does again,
const OUTAGE = 300_000; // and for so long it does not cost much
const RETRY_AFTER_CAP = 3_600_000; // no server means to keep a client away for longer
const LONGEST_WAIT = 28; // seconds; the server parks no poll for longer
const LATE = 10_000; // an answer that has not begun this long after the wait will not come
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
const FOREIGN = "foreign_answer";
const STALE = "stale_answer";
const FOREVER = 2 ** 31 - 1; // the longest that timers can

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
  const outcome = code === FOREIGN ? "" : " The message may be stored or not.";
  const detail = `Something other than Notifier answers at ${url.split("/v1/topics/")[0]}, with ${what}.${outcome}`;
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
 * Follows topics and patterns forever: each message at least once, in order, across lost connections, restarts of the
 * server and sleep. It polls only while a message is awaited, so a slow consumer is never flooded.
 *
 * Leaving the loop, `return()` and the signal end it at once and without an error. A refusal of the service (an invalid
 * topic, a missing key, a topic that is not allowed) throws a NotifierError. Everything else is tried again, and told.
 *
 * @param {string | string[]} topics  @param {Connection & Following} [options]
 */
export function subscribe(topics, options = {}) {
  return new Subscription(topics, options);
}

class Subscription {
  /**
   * Where to resume. It passes a message only when the next one is awaited: a message in hand comes again.
   * @type {string | undefined}
   */
  cursor;
  /** @type {string | undefined} what `cursor` becomes when the next message is awaited */
  #next;
  /** @type {Message[]} those not yet handed out */
  #received = [];
  #head = "";
  #url;
  #line;
  #options;
  #credential;
  /** @type {Promise<unknown>} the previous call of `next`, whatever its outcome */
  #turn = Promise.resolve();
  #life = new AbortController();
  /** Ends the request or the pause under way. */
  #interrupt = () => {};
  #hidden = false;
  #failures = 0;
  /** @type {number | undefined} when the first of them was */
  #lost;
  /** How many answers in a row came at once with nothing new. */
  #idle = 0;
  /** Whether a new token has been asked for since the last answer. */
  #renewed = false;
  /** The first poll, also after an error, does not park: it yields a cursor, and a sign that all is well, at once. */
  #quick = true;
  /** No two subscriptions have the same URL: Chrome's cache makes equal requests wait for one another. */
  #nonce = nonce();
  /**
   * Whether the service gets to see our headers, which another network may change. Where it does not, all is in the
   * URL, and no two requests have the same.
   * @type {boolean | undefined}
   */
  #headers;
  /** @type {State | undefined} */
  #state;

  constructor(/** @type {string | string[]} */ topics, /** @type {Connection & Following} */ options) {
    const { url, after, since, last } = options;
    this.#options = options;
    this.#credential = new Credential(options);
    this.#line = new Line(options);
    // The URL stays the same, because browsers keep the answer to a preflight for one URL: so the cursor, which counts
    // before `since` and `last`, is a header. (`cache: "no-store"` in place of a nonce costs a preflight each time.)
    this.#url = (/** @type {Record<string, any>} */ more) => address(url, topics) + query({ since, last, ...more });
    this.cursor = after === undefined || after === null ? undefined : String(after);
    encodeURIComponent(this.#url({}) + this.cursor); // throws here, once, and not in each attempt
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  next() {
    const turn = this.#turn.then(() => this.#advance());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  async return() {
    this.#stop();
    return { value: undefined, done: true };
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  async #advance() {
    this.cursor = this.#next ?? this.cursor;
    try {
      if (!this.#state) this.#start();
      while (!this.#over) {
        const value = this.#received.shift();
        if (value) {
          this.#next = this.#received.length ? value.id : this.#head;
          return { value, done: false };
        }
        await this.#poll();
      }
    } catch (error) {
      this.#stop();
      throw error;
    }
    return { value: undefined, done: true };
  }

  get #over() {
    return this.#life.signal.aborted;
  }

  #start() {
    const { document } = globalThis;
    const { signal } = this.#options;
    const again = () => this.#interrupt();
    const online = () => {
      this.#failures = 0;
      this.#lost = undefined;
      again();
    };
    const on = (/** @type {any} */ target, /** @type {string} */ type, /** @type {() => unknown} */ listener) =>
      target?.addEventListener?.(type, listener, { signal: this.#life.signal });
    // A poll parked before a sleep, or on another network, may be dead without a sign.
    on(globalThis, "online", online);
    on(globalThis, "offline", again);
    on(document, "resume", again);
    on(document, "visibilitychange", () => document.visibilityState === "visible" && again());
    // A page with a request under way may not enter the back/forward cache.
    on(globalThis, "pagehide", () => this.#hide(true));
    on(globalThis, "pageshow", () => this.#hidden && this.#hide(false));
    on(signal, "abort", () => this.#stop());
    if (signal?.aborted) this.#stop();
    else this.#tell("connecting");
  }

  #hide(/** @type {boolean} */ hidden) {
    this.#hidden = hidden;
    this.#interrupt();
  }

  #stop() {
    this.#life.abort();
    this.#interrupt();
  }

  /** @param {State} state  @param {{ error: Error, delay: number }} [retry] */
  #tell(state, retry) {
    if (state === this.#state && !retry) return;
    this.#state = state;
    const { onState, onError = onState ? () => {} : warn } = this.#options;
    if (retry) onError(retry.error, retry.delay);
    onState?.(state, retry);
  }

  /** One poll, and the pause after it, if it needs one. */
  async #poll() {
    while (this.#hidden && !this.#over) await this.#pause(FOREVER);
    /** @type {Attempt} */
    const attempt = { wait: this.#quick ? 0 : this.#line.wait };
    this.#quick = true; // unless this one comes to its end
    let answer;
    try {
      answer = await this.#ask(attempt);
      if (!answer || this.#over) return;
      if (attempt.headers && attempt.wait !== undefined) this.#headers = answer.preferred;
      if (attempt.headers && !this.#headers) return; // it did not know the cursor
      this.#check(attempt, answer);
    } catch (error) {
      return this.#failed(attempt, error);
    }
    this.#quick = false;
    this.#failures = 0;
    this.#lost = undefined;
    this.#renewed = false;
    this.#tell("live");
    if (answer.gap) await this.#options.onGap?.(answer.gap);
    const { parse } = this.#options;
    this.#received = parse && answer.messages.length ? parse(answer.text).messages : answer.messages;
    this.#head = answer.cursor;
    if (answer.messages.length) return;
    this.cursor = answer.cursor;
    if (answer.retryAfter) await this.#pause(answer.retryAfter + backoff(0), answer.retryAfter);
    else if (this.#idle) await this.#pause(backoff(this.#idle));
  }

  /** Throws where `answer` is an old one that came again. */
  #check(/** @type {Attempt} */ attempt, /** @type {any} */ { messages, cursor, gap, retryAfter: asked, status }) {
    const { cursor: after = "" } = this;
    const repeated =
      gap?.reason === "reset"
        ? cursor === after
        : compare(cursor, after) < 0 || messages.some((/** @type {Message} */ { id }) => compare(id, after) <= 0);
    const parked = performance.now() - (attempt.sent ?? 0);
    const idle = attempt.wait !== 0 && !messages.length && cursor === after && !asked;
    // Once it may be that access has changed. What comes again is an answer that a cache has.
    this.#idle = idle && parked < Math.min(AT_ONCE, (attempt.wait ?? LONGEST_WAIT) * 500) ? this.#idle + 1 : 0;
    if (!repeated && this.#idle < 2) return;
    this.#headers = false;
    const detail = "Something between here and the service, perhaps a cache, gives an old answer again.";
    throw new NotifierError(status, { code: STALE, detail });
  }

  /** Ends the subscription with `error` where nothing else can be done; else the pause before the next attempt. */
  #failed(/** @type {Attempt} */ attempt, /** @type {any} */ error) {
    if (this.#over) return;
    const renewable = this.#credential.refused(error);
    if (renewable && !this.#renewed) {
      this.#renewed = true;
      this.#quick = attempt.wait === 0;
      return;
    }
    const ours = error instanceof NotifierError && error.code !== FOREIGN;
    // A poll that shall not park takes so long only if it is not understood.
    if (!ours && attempt.wait === 0 && performance.now() - (attempt.sent ?? NaN) > CUT) this.#headers ??= false;
    if (ours && !error.temporary && !renewable) throw error;
    if (!ours && this.#line.broke(attempt)) return; // a quick one shows whether anybody is there
    const now = performance.now();
    this.#lost ??= now;
    const floor = error.retryAfter || 0;
    const cap = !ours && now - this.#lost < OUTAGE ? OUTAGE_CAP : BACKOFF_CAP;
    const delay = floor + backoff(this.#failures++, undefined, cap);
    this.#tell("retrying", { error, delay });
    return this.#pause(delay, floor);
  }

  /** One request: the answer, or undefined when it was interrupted. */
  async #ask(/** @type {Attempt} */ attempt) {
    const { fetch } = this.#options;
    const { limit } = this.#line;
    const request = new AbortController();
    let interrupted = false;
    this.#interrupt = () => {
      interrupted = true;
      request.abort();
    };
    const late = (/** @type {boolean} */ slept) => {
      attempt.silent = true;
      if (slept) this.#interrupt();
      else request.abort(new Error("no answer in time"));
    };
    let disarm = deadline((attempt.wait ?? LONGEST_WAIT) * 1_000 + LATE, late);
    try {
      const aborted = new Promise((_, reject) => request.signal.addEventListener("abort", reject));
      const headers = await Promise.race([this.#credential.headers(), aborted]); // a function may take forever
      const more = { limit: limit === LIMIT ? undefined : limit, nonce: this.#nonce };
      attempt.headers = this.#headers !== false;
      if (attempt.headers) {
        // Only the cursor changes from poll to poll: that is how the server recognises them.
        if (this.cursor !== undefined) headers["Last-Event-ID"] = encodeURIComponent(this.cursor);
        if (attempt.wait !== undefined) headers.Prefer = `wait=${attempt.wait}`;
      } else Object.assign(more, { after: this.cursor, wait: attempt.wait, nonce: nonce() });
      // An answer from something in between may have got into the cache.
      const cache = this.#failures ? "reload" : "default";
      attempt.sent = performance.now();
      const response = await send(this.#url(more), { headers, cache, signal: request.signal }, fetch);
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
      this.#interrupt = () => {};
    }
  }

  /** Waits. An interruption ends it early, though not before the `floor` that the server asked for. */
  async #pause(/** @type {number} */ ms, floor = 0) {
    if (this.#over) return;
    const earliest = Date.now() + floor;
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#interrupt = () => {
        if (!this.#over && Date.now() < earliest) return;
        clearTimeout(timer);
        resolve(undefined);
      };
    });
    this.#interrupt = () => {};
  }
}

/**
 * One poll: how many seconds it may wait (what the server thinks best, unless there is a number), whether headers said
 * so, when it was sent, when its answer began, and whether it was given up.
 * @typedef {{ wait?: number, headers?: boolean, sent?: number, begun?: number, silent?: boolean }} Attempt
 */

/** What gets through to the service and back: how long a poll may park, and how much an answer may hold. */
class Line {
  /** Messages to ask for. */
  limit;
  #most;
  #longest;
  /** @type {number | undefined} */
  #shorter;
  #shortened = 0;
  /** How many polls that parked were cut in a row. */
  #cuts = 0;

  constructor(/** @type {Following} */ { wait, limit }) {
    this.#longest = wait ?? undefined;
    this.#most = limit ?? LIMIT;
    if (this.#longest !== undefined) {
      if (!(this.#longest >= 1)) throw new TypeError("wait is a number of seconds, 1 to 28");
      this.#longest = Math.min(Math.ceil(this.#longest), LONGEST_WAIT); // whole seconds, as Prefer has them
    }
    if (!Number.isInteger(this.#most) || this.#most < 1 || this.#most > 1_000)
      throw new TypeError("limit is a whole number from 1 to 1000");
    this.limit = Math.min(FIRST_LIMIT, this.#most);
  }

  /** Seconds that a poll may park; undefined is what the server thinks best. */
  get wait() {
    if (performance.now() - this.#shortened > FORGET_CUT) this.#shorter = undefined;
    return this.#shorter ?? this.#longest;
  }

  #shorten(/** @type {number} */ seconds) {
    this.#shorter = Math.max(1, Math.floor(seconds));
    this.#shortened = performance.now();
  }

  /** An answer with `count` messages has come. */
  carried(/** @type {Attempt} */ { wait, begun = 0 }, /** @type {number} */ count) {
    if (wait !== 0) this.#cuts = 0;
    const took = performance.now() - begun;
    if (took > SLOW) this.#halve();
    else if (took < FAST && count >= this.limit) this.limit = Math.min(this.#most, this.limit * 2);
  }

  #halve() {
    this.limit = Math.max(1, this.limit >> 1);
  }

  /**
   * Nothing has come, or only a part. Returns whether that means nothing yet: something in between may have cut a poll
   * because it parked for long. Once this may happen, twice it is a habit, and three times a fault.
   */
  broke(/** @type {Attempt} */ { wait = LONGEST_WAIT, sent, begun, silent }) {
    if (begun) this.#halve();
    if (begun || !wait || !sent) return false;
    if (silent) {
      this.#shorten(wait / 2);
      return false;
    }
    const parked = performance.now() - sent;
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

  constructor(/** @type {Connection} */ { key, token = key }) {
    this.#source = token;
    if (typeof token !== "function") this.#token = checked(token);
  }

  /** @returns {Promise<Record<string, string>>} */
  async headers() {
    if (typeof this.#source === "function") this.#token ??= checked(await this.#source(this.#refused));
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }

  /** Whether `error` refuses a token that can be renewed. (A 429 may do so too: it is said after many a 401.) */
  refused(/** @type {any} */ error) {
    if (typeof this.#source !== "function" || ![401, 429].includes(error?.status)) return false;
    this.#refused = this.#token;
    this.#token = undefined;
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
 * Publishes one message; resolves with its id once it is stored. A failure throws and is not retried here: only the
 * caller knows whether the message may be stored twice. (A 401 is: nothing was stored, and `token` may have a new one.)
 *
 * Blobs, buffers, and strings with a `contentType` (such as "text/plain") are sent as they are; all else as JSON. What
 * JSON would change or leave out is a TypeError.
 *
 * @param {string} topic  @param {any} data
 * @param {Connection & { title?: string, click?: string, priority?: number, tags?: string | string[],
 *   contentType?: string }} [options]
 * @returns {Promise<{ id: string, topic: string }>}
 */
export async function publish(topic, data, options = {}) {
  const { title, click, priority, tags, contentType, url, signal, fetch } = options;
  if (Array.isArray(tags) && tags.some((tag) => String(tag).includes(","))) throw new TypeError("a tag has no comma");
  const { body, type } = written(data, contentType);
  // Display fields travel in the query, because a header can only contain Latin-1.
  const target = address(url, topic) + query({ title, click, priority, tags });
  const credential = new Credential(options);
  for (let attempt = 0; ; attempt += 1) {
    const headers = new Headers({ ...(await credential.headers()), "Content-Type": type });
    const response = await send(target, { method: "POST", headers, body, signal }, fetch);
    if (response.ok) {
      const answer = json(await response.text());
      if (typeof answer?.id === "string") return answer;
      throw foreign(response, "outcome_unknown");
    }
    const error = await NotifierError.from(response);
    if (credential.refused(error) && attempt === 0) continue;
    // What says 5xx may only have lost patience.
    throw error.code === FOREIGN && error.status >= 500 ? foreign(response, "outcome_unknown") : error;
  }
}

/**
 * What is sent for `data`, and its type.
 *
 * @param {any} data  @param {string | undefined} contentType  @returns {{ body: any, type: string }}
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
    const [service] = url.split("/v1/topics/");
    if (!origin || url.startsWith(`${origin}/`) || init.signal?.aborted) throw error;
    const signal = init.signal ?? AbortSignal.timeout(LATE);
    await fetch(`${service}/healthz`, { mode: "no-cors", cache: "no-store", signal }).catch(() => Promise.reject(error));
    const remedy = `perhaps its NOTIFIER_ORIGINS must have ${origin === "null" ? "*" : origin}`; // null: of a file
    throw new Error(`${service} runs, but this page gets no answer from it: ${remedy}`, { cause: error });
  }
}

/**
 * The URL of topics. A segment that URLs resolve away is refused here, because the request would go elsewhere.
 *
 * @param {string | URL | undefined} url  @param {string | string[]} topics
 */
function address(url, topics) {
  const list = [topics].flat().join(",");
  if (!list || /(^|[/,])\.{1,2}([/,]|$)/.test(list)) throw new TypeError(`"${list}" names no topic`);
  const { protocol, origin, pathname, username, password } = new URL(url ?? ".", import.meta.url);
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

/** How two cursors are ordered: as numbers, below, at or above 0. NaN where one is none, such as "latest". */
function compare(/** @type {string} */ one, /** @type {string} */ other) {
  if (!/^\d+$/.test(one) || !/^\d+$/.test(other)) return NaN;
  return one.length - other.length || (one < other ? -1 : Number(one > other));
}

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
