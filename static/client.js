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
 * @property {number} [wait]  seconds that a poll may park: for impatient proxies, the server knows best otherwise
 * @property {(gap: Gap) => unknown} [onGap]  messages were lost; awaited before the next message is handed out
 * @property {(state: State, retry?: { error: Error, delay: number }) => void} [onState]  `delay` in milliseconds;
 *   unless given, errors go to the browser's console
 */

const BACKOFF = 1_000;
const BACKOFF_CAP = 30_000;
const RETRY_AFTER_CAP = 3_600_000; // no server means to keep a client away for longer
const LONGEST_WAIT = 28; // seconds; the server parks no poll for longer
const LATE = 10_000; // an answer this long after the wait will not come
const BODY = 120_000; // 4 MiB, the largest answer, over a slow phone line
const CALM = 250; // between polls that come back empty before their time
const SLEPT = 30_000; // a timer this late was not slow: the machine slept
const FOREVER = 2 ** 31 - 1; // the longest that timers can

/** The service refused: `status` and, from its problem details, the stable `code` and the sentence in `detail`. */
export class NotifierError extends Error {
  /** @param {number} status  @param {any} problem  @param {number} [retryAfter] milliseconds, 0 unless asked for */
  constructor(status, problem, retryAfter = 0) {
    const { code = "unknown", detail = "" } = Object(problem);
    super(`${status} ${code}${detail && `: ${detail}`}`);
    this.name = "NotifierError";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. */
  get temporary() {
    return this.status >= 500 || [408, 425, 429].includes(this.status);
  }

  /** @param {Response} response */
  static async from(response) {
    return new NotifierError(response.status, await response.json().catch(() => null), retryAfter(response.headers));
  }
}

/** Milliseconds to wait after `failures` failed attempts, the first being 0: full jitter, doubling up to a cap. */
export function backoff(/** @type {number} */ failures, random = Math.random()) {
  return random * Math.min(BACKOFF_CAP, BACKOFF * 2 ** failures);
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
 * Leaving the loop, `return()` and the signal end it at once and without an error. A request that cannot succeed
 * (an invalid topic, a missing key, a topic that is not allowed) throws a NotifierError; everything else is tried again.
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
  #options;
  #credential;
  /** @type {Promise<unknown>} the previous call of `next`, whatever its outcome */
  #turn = Promise.resolve();
  #life = new AbortController();
  /** Ends the request or the pause under way. */
  #interrupt = () => {};
  #hidden = false;
  #failures = 0;
  /** Whether a new token has been asked for since the last answer. */
  #renewed = false;
  /** The first poll, also after an error, does not park: it yields a cursor, and a sign that all is well, at once. */
  #quick = true;
  /** @type {State | undefined} */
  #state;

  constructor(/** @type {string | string[]} */ topics, /** @type {Connection & Following} */ options) {
    const { url, after, since, last } = options;
    this.#options = options;
    this.#credential = new Credential(options);
    // The URL stays the same, because browsers keep the answer to a preflight for one URL: so the cursor, which counts
    // before `since` and `last`, is a header. No two subscriptions have the same URL, because Chrome's cache makes
    // equal requests wait for one another; the other remedy, `cache: "no-store"`, costs a preflight for each poll.
    const nonce = Math.random().toString(36).slice(2);
    this.#url = address(url, topics) + query({ since, last, nonce });
    this.cursor = after ?? undefined;
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
    const on = (/** @type {any} */ target, /** @type {string} */ type, /** @type {() => unknown} */ listener) =>
      target?.addEventListener?.(type, listener, { signal: this.#life.signal });
    // A poll parked before a sleep, or on another network, may be dead without a sign.
    on(globalThis, "online", again);
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
    const { onState = () => retry && console.warn("Trying again after an error:", retry.error) } = this.#options;
    onState(state, retry);
  }

  /** One poll, and the pause after it, if it needs one. */
  async #poll() {
    while (this.#hidden && !this.#over) await this.#pause(FOREVER);
    const started = performance.now();
    const parking = !this.#quick;
    let answer;
    try {
      answer = await this.#ask();
    } catch (/** @type {any} */ error) {
      if (this.#over) return;
      const renewable = this.#credential.refused(error);
      if (renewable && !this.#renewed) return void (this.#renewed = true);
      if (error instanceof NotifierError && !error.temporary && !renewable) throw error;
      this.#quick = true;
      const floor = error.retryAfter || 0;
      const delay = floor + backoff(this.#failures++);
      this.#tell("retrying", { error, delay });
      return this.#pause(delay, floor);
    }
    this.#quick = !answer;
    if (!answer || this.#over) return;
    this.#failures = 0;
    this.#renewed = false;
    this.#tell("live");
    if (answer.gap) await this.#options.onGap?.(answer.gap);
    this.#received = answer.messages;
    this.#head = answer.cursor;
    if (answer.messages.length) return;
    this.cursor = answer.cursor;
    const early = CALM - (performance.now() - started);
    if (answer.retryAfter) await this.#pause(answer.retryAfter + backoff(0), answer.retryAfter);
    else if (parking && early > 0) await this.#pause(early, early);
  }

  /** One request: the answer, or undefined when it was interrupted. */
  async #ask() {
    const { fetch, wait } = this.#options;
    const request = new AbortController();
    let interrupted = false;
    this.#interrupt = () => {
      interrupted = true;
      request.abort();
    };
    const late = (/** @type {boolean} */ slept) =>
      slept ? this.#interrupt() : request.abort(new Error("no answer in time"));
    const seconds = this.#quick ? 0 : wait;
    let disarm = deadline((seconds ?? LONGEST_WAIT) * 1_000 + LATE, late);
    try {
      // Only the cursor changes from poll to poll: that is how the server recognises them.
      const aborted = new Promise((_, reject) => request.signal.addEventListener("abort", reject));
      const headers = await Promise.race([this.#credential.headers(), aborted]); // a function may take forever
      if (this.cursor !== undefined) headers["Last-Event-ID"] = encodeURIComponent(this.cursor);
      if (seconds !== undefined) headers.Prefer = `wait=${Math.ceil(seconds)}`;
      // An answer from something in between may have got into the cache.
      const cache = this.#failures ? "reload" : "default";
      const response = await send(this.#url, { headers, cache, signal: request.signal }, fetch);
      disarm();
      disarm = deadline(BODY, late);
      if (!response.ok) throw await NotifierError.from(response);
      const answer = await response.json();
      if (!Array.isArray(answer?.messages) || typeof answer.cursor !== "string")
        throw new Error(`no Notifier answers at ${response.url}`);
      return { ...answer, retryAfter: retryAfter(response.headers) };
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
 * Blobs, buffers, and strings with a `contentType` (such as "text/plain") are sent as they are; all else as JSON.
 *
 * @param {string} topic  @param {any} data
 * @param {Connection & { title?: string, click?: string, priority?: number, tags?: string | string[],
 *   contentType?: string }} [options]
 * @returns {Promise<{ id: string, topic: string }>}
 */
export async function publish(topic, data, options = {}) {
  const { title, click, priority, tags, contentType, url, signal, fetch } = options;
  const binary = data instanceof Blob || data instanceof ArrayBuffer || ArrayBuffer.isView(data);
  /** @type {any} */
  const body = binary || (contentType && typeof data === "string") ? data : JSON.stringify(data);
  if (body === undefined) throw new TypeError("this cannot be written as JSON");
  const type = contentType || (binary ? body.type || "application/octet-stream" : "application/json");
  // Display fields travel in the query, because a header can only contain Latin-1.
  const target = address(url, topic) + query({ title, click, priority, tags });
  const credential = new Credential(options);
  for (let attempt = 0; ; attempt += 1) {
    const headers = new Headers({ ...(await credential.headers()), "Content-Type": type });
    const response = await send(target, { method: "POST", headers, body, signal }, fetch);
    if (response.ok) return response.json();
    const error = await NotifierError.from(response);
    if (!credential.refused(error) || attempt > 0) throw error;
  }
}

/**
 * A request. Of one to another origin that fails, browsers do not tell why; but whether a server runs, they do.
 *
 * @param {string} url  @param {RequestInit} init
 */
async function send(url, init, fetch = globalThis.fetch) {
  try {
    return await fetch(url, init);
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
  const { protocol, origin, pathname } = new URL(url ?? ".", import.meta.url);
  if (!protocol.startsWith("http")) throw new TypeError('say where the service is: { url: "http://..." }');
  const path = encodeURIComponent(list).replaceAll("%2F", "/").replaceAll("%2C", ",");
  return `${origin}${pathname.replace(/\/*$/, "")}/v1/topics/${path}`;
}

/** The fields that have a value, as a query string. */
function query(/** @type {Record<string, any>} */ fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return given.map(([name, value], at) => `${at ? "&" : "?"}${name}=${encodeURIComponent(value)}`).join("");
}

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
