/** A connection to the service, as users see it. */

import { doubt, FOREIGN, NotifierError, UNKNOWN } from "./errors.js";
import { Polls } from "./polls.js";
import { written } from "./publishing.js";
import { query } from "./requests.js";
import { Subscription } from "./subscription.js";

/**
 * @template [T=any]
 * @typedef {import("../client.js").Message<T>} Message
 */
/** @typedef {import("../client.js").Connecting} Connecting */
/** @typedef {import("../client.js").Following} Following */
/** @typedef {import("../client.js").Publishing} Publishing */
/** @typedef {import("../client.js").Retry} Retry */
/** @typedef {import("../client.js").Sending} Sending */
/** @typedef {import("../client.js").State} State */

const PATIENCE = 70_000; // ms for an answer to what is published: the server takes a minute for a body at the most

/**
 * A connection to the service: any number of subscriptions, which one poll serves, and what is published.
 *
 * @param {Connecting} [options]
 */
export function connect(options = {}) {
  return new Connection(options);
}

/** All subscriptions of one service and one user, and what is published there. */
export class Connection {
  #options;
  #polls;

  constructor(/** @type {Connecting} */ options) {
    this.#options = options;
    this.#polls = new Polls(options);
  }

  /** @returns {State} */
  get state() {
    return this.#polls.state;
  }

  /** Whether it has no subscriptions. */
  get idle() {
    return this.#polls.idle;
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
    if (typeof handler !== "function") return new Subscription(topics, handler ?? {}, this.#polls);
    const messages = new Subscription(topics, options, this.#polls);
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
    // Display fields travel in the query, because a header can only contain Latin-1.
    const url = this.#polls.url([topic]) + query({ title, click, priority, tags });
    return this.#ask(url, ({ id }) => typeof id === "string", sending, written(data, contentType));
  }

  /**
   * Publishes up to 1000 messages, all or none; resolves with their ids.
   *
   * @param {(Publishing & { topic: string, data: any })[]} messages  @param {Sending} [sending]
   * @returns {Promise<string[]>}
   */
  async publishAll(messages, sending = {}) {
    const url = this.#polls.url(["a"]).replace(/topics\/a$/, "messages");
    return (await this.#ask(url, ({ ids }) => Array.isArray(ids), sending, written(messages))).ids;
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
    const url = this.#polls.url([topics].flat()) + query({ before, limit: last });
    return this.#ask(url, (answer) => Array.isArray(answer.messages) && "before" in answer, { signal });
  }

  /** Calls `listener` when the state changes, and before each pause; what is returned ends that. */
  onState(/** @type {(state: State, retry?: Retry) => void} */ listener) {
    this.#polls.listeners.add(listener);
    return () => void this.#polls.listeners.delete(listener);
  }

  /** Makes the next attempt now, though not before the service wants it. */
  retryNow() {
    this.#polls.retryNow();
  }

  /** Ends all subscriptions. */
  close() {
    this.#polls.close();
  }

  /**
   * A request whose answer is `right`, or an error. Without an answer the outcome of one that sends something is unknown.
   *
   * @param {string} url  @param {(answer: any) => boolean} right  @param {Sending} sending
   * @param {{ body: any, type: string }} [sent]  @returns {Promise<any>}
   */
  async #ask(url, right, { signal, idempotencyKey: key }, sent) {
    const { parse = JSON.parse } = this.#options;
    const code = sent ? UNKNOWN : FOREIGN;
    const control = new AbortController();
    const abort = () => control.abort(signal?.reason);
    const late = () => control.abort(new NotifierError(0, { code, detail: `No answer came in time.${doubt(code)}` }));
    const headers = { ...(sent && { "Content-Type": sent.type }), ...(key && { "Idempotency-Key": key }) };
    const init = { ...(sent && { method: "POST", body: sent.body }), headers };
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    try {
      const { answer, text } = await this.#polls.requests.ask({ control, patience: PATIENCE, late, right, code }, url, init);
      return sent ? answer : parse(text);
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }
}
