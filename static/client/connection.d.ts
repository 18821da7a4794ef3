/** A connection to the service, as users see it. */
import { Subscription } from "./subscription.js";
export type Message<T = any> = import("../client.js").Message<T>;
export type Connecting = import("../client.js").Connecting;
export type Following = import("../client.js").Following;
export type Publishing = import("../client.js").Publishing;
export type Retry = import("../client.js").Retry;
export type Sending = import("../client.js").Sending;
export type State = import("../client.js").State;
/**
 * A connection to the service: any number of subscriptions, which one poll serves, and what is published.
 *
 * @param {Connecting} [options]
 */
export declare function connect(options?: Connecting): Connection;
/** All subscriptions of one service and one user, and what is published there. */
export declare class Connection {
    #private;
    constructor(/** @type {Connecting} */ options: Connecting);
    /** @returns {State} */
    get state(): State;
    /** Whether it has no subscriptions. */
    get idle(): boolean;
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
    subscribe<T = any>(topics: string | string[], options?: Following): Subscription<T>;
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
    subscribe<T = any>(topics: string | string[], handler: (message: Message<T>) => unknown, options?: Following): () => void;
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
    publish(topic: string, data: any, { title, click, priority, tags, contentType, ...sending }?: Publishing & Sending & {
        contentType?: string;
    }): Promise<{
        id: string;
        topic: string;
    }>;
    /**
     * Publishes up to 1000 messages, all or none; resolves with their ids.
     *
     * @param {(Publishing & { topic: string, data: any })[]} messages  @param {Sending} [sending]
     * @returns {Promise<string[]>}
     */
    publishAll(messages: (Publishing & {
        topic: string;
        data: any;
    })[], sending?: Sending): Promise<string[]>;
    /**
     * A page of what was: the `last` messages (100 unless given, 1000 at most) before a cursor, or the newest, oldest
     * first. `before` of the answer leads to the page before it; null is the beginning.
     *
     * @template [T=any]
     * @param {string | string[]} topics  @param {{ before?: string, last?: number, signal?: AbortSignal }} [options]
     * @returns {Promise<{ messages: Message<T>[], before: string | null }>}
     */
    history<T = any>(topics: string | string[], { before, last, signal }?: {
        before?: string;
        last?: number;
        signal?: AbortSignal;
    }): Promise<{
        messages: Message<T>[];
        before: string | null;
    }>;
    /** Calls `listener` when the state changes, and before each pause; what is returned ends that. */
    onState(/** @type {(state: State, retry?: Retry) => void} */ listener: (state: State, retry?: Retry) => void): () => undefined;
    /** Makes the next attempt now, though not before the service wants it. */
    retryNow(): void;
    /** Ends all subscriptions. */
    close(): void;
}
