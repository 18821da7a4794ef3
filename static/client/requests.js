/** Requests: where they go, what they show of their caller, and what becomes of them. */

import { FOREIGN, refusal } from "./errors.js";
import { deadline, LATE } from "./times.js";

/** @typedef {import("../client.js").Connecting} Connecting */

/**
 * One request: how long its answer may take to begin, in milliseconds, and what is called when it is late or stops; what
 * a right answer is; and what an answer that is not ours means. While it is made: the token that it shows, when it was
 * sent, and when its answer began.
 * @typedef {object} Exchange
 * @property {AbortController} control
 * @property {number} patience
 * @property {(slept: boolean) => void} late
 * @property {(answer: any) => boolean} right
 * @property {string} [code]  FOREIGN, or UNKNOWN for what may have been done
 * @property {string} [token]
 * @property {number} [sent]
 * @property {number} [begun]
 */

// Where this module came from, which the service writes here when it serves it. In a bundle it is not there to be found.
const HOME = undefined;

const SILENCE = 30_000; // ms; the rest of an answer that stops for so long will not come
const PIECE = 1_024; // bytes; a body that comes more slowly has stopped
const OURS = /^(accept|content-type|idempotency-key|last-event-id|prefer)$/; // headers

/** The requests of one connection, which are all of one user. */
export class Requests {
  #options;
  #headers;
  /** Whether another token may be had when one is refused. */
  renews;
  /** @type {string | undefined} */
  #token;
  /** @type {string | undefined} */
  #refused;
  /** Whether a new token has been asked for since the last success. */
  #renewed = false;

  /** Throws for options that no request can be made with. */
  constructor(/** @type {Connecting} */ options) {
    const { key, token = key, headers } = options;
    this.#options = options;
    this.renews = typeof token === "function";
    if (typeof token !== "function") this.#token = checked(token);
    this.#headers = sendable(headers, this.url(["a"]), token);
  }

  url(/** @type {string[]} */ items) {
    return address(this.#options.url, items);
  }

  /**
   * Asks, with a new token where one is refused, and throws unless the answer is right.
   *
   * @param {Exchange} exchange  @param {string} url  @param {RequestInit} init
   */
  async ask(exchange, url, init) {
    const { control, patience, late, right, code = FOREIGN } = exchange;
    const { signal } = control;
    const aborted = new Promise((_, reject) => signal.addEventListener("abort", reject));
    let disarm = () => {};
    const arm = (/** @type {number} */ ms) => {
      disarm();
      disarm = deadline(ms, late);
    };
    try {
      for (let again = true; ; again = false) {
        arm(patience);
        signal.throwIfAborted();
        const token = await Promise.race([this.#current(), aborted]); // a function may take forever
        const bearer = token && { Authorization: `Bearer ${token}` };
        const headers = { ...this.#headers, ...init.headers, ...bearer };
        Object.assign(exchange, { token, sent: performance.now() });
        const response = await send(url, { ...init, headers, signal }, this.#options.fetch);
        if (!response.ok) {
          const error = await refusal(response, code);
          if (this.#outdated(error.status, token) && again) continue;
          throw error;
        }
        this.#renewed = false;
        exchange.begun = performance.now();
        const text = await whole(response, () => arm(SILENCE));
        const answer = json(text);
        if (!answer || !right(answer)) throw await refusal(response, code);
        return { answer, text, response };
      }
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      disarm();
    }
  }

  /** @returns {Promise<string | undefined>} */
  async #current() {
    const { token } = this.#options;
    if (typeof token === "function") this.#token ??= checked(await token(this.#refused));
    return this.#token;
  }

  /** Whether `token` is refused and another one may be tried at once. (A 429 may refuse it too, after many a 401.) */
  #outdated(/** @type {number} */ status, /** @type {string | undefined} */ token) {
    if (!this.renews || ![401, 429].includes(status)) return false;
    const known = token !== this.#token; // to another request
    if (!known) {
      this.#refused = token;
      this.#token = undefined;
    }
    if (status === 429 || (this.#renewed && !known)) return false;
    this.#renewed = true;
    return true;
  }
}

/** No header can hold a login page in the place of a token: that would look like a network that fails. */
function checked(/** @type {string | null | undefined} */ given) {
  const token = String(given ?? "").trim();
  if (/^[!-~]*$/.test(token)) return token || undefined;
  throw new TypeError("what the option token gives is not a token: it has spaces or is not ASCII");
}

/**
 * The headers of the user's, each of which can be sent: no request fails later because of one, or goes without it.
 *
 * @param {HeadersInit | undefined} headers  @param {string} url  @param {unknown} token
 */
function sendable(headers, url, token) {
  const given = new Headers(headers); // throws for what is no header
  const { headers: sent } = new Request(url, { headers: given }); // browsers leave out what pages may not set
  for (const [name] of given)
    if (!sent.has(name) || OURS.test(name) || (token && name === "authorization"))
      throw new TypeError(`the header ${name} cannot be given: the browser or this client sets it`);
  return Object.fromEntries(given);
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
export function query(/** @type {Record<string, any>} */ fields) {
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
