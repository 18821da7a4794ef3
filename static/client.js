/**
 * Notifier's client for browsers, Node 18, Deno and Bun: nothing to install.
 *
 *     import { connect } from "/client.js";
 *     const notifier = connect();
 *     const stop = notifier.subscribe("orders/*", ({ topic, data }) => console.log(topic, data));
 *     for await (const { data } of notifier.subscribe("user/42/**", { last: 10 })) console.log(data);
 *
 * This is what users call; the rest is in the folder `client`: a subscription, which has a cursor of its own; the polls,
 * which ask for all of them; requests. The service serves all of it as one file, so that no page ever has some of one
 * version and some of another, and apart from that `tabs.js`, for pages that share their poll.
 *
 * @typedef {"connecting" | "live" | "retrying" | "closed"} State
 * @typedef {{ reason: "retention" | "reset", after: string }} Gap
 * @typedef {{ error: Error, delay: number }} Retry  the next attempt is made after `delay` milliseconds
 * @typedef {string | ((refused?: string) => string | null | undefined | Promise<string | null | undefined>)} Token
 * @typedef {import("./client/connection.js").Connection} Connection
 */

import { connect } from "./client/connection.js";

export { connect };
export { NotifierError } from "./client/errors.js";

/**
 * @template [T=any]
 * @typedef {import("./client/subscription.js").Subscription<T>} Subscription
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
