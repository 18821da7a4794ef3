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
export type State = "connecting" | "live" | "retrying" | "closed";
export type Gap = {
    reason: "retention" | "reset";
    after: string;
};
export type Retry = {
    error: Error;
    delay: number;
};
export type Token = string | ((refused?: string) => string | null | undefined | Promise<string | null | undefined>);
export type Message<T = any> = {
    /**
     * also a cursor: `subscribe(topics, { after: message.id })` goes on behind it
     */
    id: string;
    topic: string;
    /**
     * RFC 3339
     */
    time: string;
    /**
     * JSON; text as a string; other bytes as base64, and `encoding` says so
     */
    data: T;
    /**
     * unless it is application/json
     */
    content_type?: string;
    encoding?: "base64";
    title?: string;
    click?: string;
    /**
     * 1 to 5
     */
    priority?: number;
    tags?: string[];
};
export type Connecting = {
    /**
     * the service; unless given, where this module came from
     */
    url?: string | URL;
    /**
     * a key or a token, sent as a bearer token
     */
    key?: string;
    /**
     * the same, or a function that returns one: it is called for the first request, and after a
     * 401 again, with the token that was refused; what it returns is used until then
     */
    token?: Token;
    /**
     * what went wrong, and in how many milliseconds it is
     * tried again; without a delay, a subscription with a handler has ended. Unless given, the browser's console has it
     */
    onError?: (error: Error, delay?: number) => void;
    /**
     * true or a name: the tabs of a browser with the same service, user and name have
     * one poll together. Where a browser cannot, each has its own
     */
    share?: boolean | string;
    fetch?: typeof globalThis.fetch;
    /**
     * sent with each request, beside our own; one that cannot be sent is a TypeError
     */
    headers?: HeadersInit;
    /**
     * reads an answer in the place of JSON.parse, which rounds large numbers
     */
    parse?: (text: string) => any;
};
export type Following = {
    /**
     * a cursor or message id, "earliest" or "latest"
     */
    after?: string | number | null;
    /**
     * such as "10m", or RFC 3339
     */
    since?: string;
    /**
     * the newest so many, then whatever comes
     */
    last?: number;
    /**
     * the newest so many of each topic, then whatever comes
     */
    lastEach?: number;
    /**
     * where the cursor is kept, such as localStorage: one that is there counts before all others
     */
    store?: Store;
    /**
     * most messages in one answer, 1 to 1000, by default 100. A slow line is asked for fewer
     */
    limit?: number;
    /**
     * seconds that a poll may park, 1 to 28. Less is found out where something in between is
     * impatient; unless given, the server decides
     */
    wait?: number;
    signal?: AbortSignal;
    /**
     * messages were lost; awaited before the next message is handed out
     */
    onGap?: (gap: Gap) => unknown;
    /**
     * as that of the connection, for this subscription
     */
    onError?: (error: Error, delay?: number) => void;
    onState?: (state: State, retry?: Retry) => void;
};
export type Store = {
    getItem(key: string): any;
    setItem(key: string, cursor: string): any;
};
export type Publishing = {
    title?: string;
    click?: string;
    priority?: number;
    tags?: string | string[];
};
export type Sending = {
    signal?: AbortSignal;
    idempotencyKey?: string;
};
/**
 * A connection to the service: any number of subscriptions, which one poll serves, and what is published.
 *
 * @param {Connecting} [options]
 */
export declare function connect(options?: Connecting): Connection;
/**
 * Follows topics and patterns forever, as `connect(options).subscribe(topics, options)` does. Subscriptions with the
 * same service, token, `fetch`, `headers` and `parse` have one connection.
 *
 * @template [T=any]
 * @param {string | string[]} topics  @param {Connecting & Following} [options]  @returns {Subscription<T>}
 */
export declare function subscribe<T = any>(topics: string | string[], options?: Connecting & Following): Subscription<T>;
/**
 * Publishes one message, as `connect(options).publish(topic, data, options)` does.
 *
 * @param {string} topic  @param {any} data
 * @param {Connecting & Publishing & Sending & { contentType?: string }} [options]
 */
export declare function publish(topic: string, data: any, options?: Connecting & Publishing & Sending & {
    contentType?: string;
}): Promise<{
    id: string;
    topic: string;
}>;
/**
 * A refusal: `status` and, from the service's problem details, the stable `code` and the sentence in `detail`. Two
 * codes are the client's: `foreign_answer`, because something between here and the service answered in its place, and
 * `stale_answer`, because something gave an old answer again. `outcome_unknown` is said by both: what was published may
 * be stored or not.
 */
export declare class NotifierError extends Error {
    status: number;
    code: any;
    detail: any;
    retryAfter: number;
    /** @param {number} status  @param {any} problem  @param {number} [retryAfter] milliseconds, 0 unless asked for */
    constructor(status: number, problem: any, retryAfter?: number);
    /** Whether the same request may succeed later. Only what the service itself says is final. */
    get temporary(): boolean;
    /** @param {Response} response */
    static from(response: Response): Promise<NotifierError>;
}
/** Milliseconds to wait after `failures` failed attempts, the first being 0: full jitter, doubling up to a cap. */
export declare function backoff(/** @type {number} */ failures: number, random?: number, cap?: number): number;
/** Milliseconds that `Retry-After`, in seconds or as a date, asks to wait; 0 without one. */
export declare function retryAfter(/** @type {Headers} */ headers: Headers, now?: number): number;
export type Place = {
    /**
     * topics and patterns
     */
    items: string[];
    /**
     * which topics they match
     */
    pattern: RegExp;
    /**
     * where to begin, as long as no cursor says so
     */
    begin?: Record<string, any>;
    /**
     * up to where everything has been handed to the subscription
     */
    read: string | undefined;
    /**
     * messages, and `{ gap }` where some were lost
     */
    queue: any[];
    /**
     * whether it has ended
     */
    over: boolean;
    /**
     * whether its next message is awaited: only then is anything asked for
     */
    waits: boolean;
    /**
     * whether it has all that there was when it asked last: then it may wait with the others
     */
    fresh: boolean;
    /**
     * whether it must be asked for alone, because an answer to several concerned one of them
     */
    alone: boolean;
    limit: number;
    wait: number | undefined;
    take: (messages: Message[], cursor: string, gap?: Gap) => void;
    end: (error?: any) => void;
    /**
     * whether anybody listens
     */
    tell: (state: State, retry?: Retry) => boolean;
};
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
export declare class Subscription<T = any> {
    #private;
    /**
     * Where to resume. It passes a message only when the next one is awaited: a message in hand comes again.
     * @type {string | undefined}
     */
    cursor: string | undefined;
    /** @param {string | string[]} topics  @param {Following} options  @param {Door} door */
    constructor(topics: string | string[], options: Following, door: Door);
    [Symbol.asyncIterator](): this;
    /** @returns {Promise<IteratorResult<Message<T>, undefined>>} */
    next(): Promise<IteratorResult<Message<T>, undefined>>;
    /** @returns {Promise<IteratorResult<any, undefined>>} */
    return(): Promise<IteratorResult<any, undefined>>;
    /**
     * The same in arrays: all messages that are there, at once. The cursor passes them when the next ones are awaited.
     *
     * @returns {AsyncIterableIterator<Message<T>[]>}
     */
    batches(): AsyncIterableIterator<Message<T>[]>;
}
export type Door = {
    url(items: string[]): string;
    enter(place: Place): void;
    leave(place: Place): void;
    changed(): void;
};
/**
 * What a subscription asks of its connection.
 * @typedef {{ url(items: string[]): string, enter(place: Place): void, leave(place: Place): void, changed(): void }} Door
 */
/**
 * All subscriptions of one service and one user. Those that have everything wait together, with one poll: a list has one
 * cursor whatever is in it. Those that are behind (new ones, slow ones, all after a failure) are looked after beside it,
 * by requests that do not wait, one at a time. So a connection has two requests under way at the most.
 */
export declare class Connection {
    #private;
    /** @type {State} */
    state: State;
    constructor(/** @type {Connecting} */ options: Connecting);
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
export type Attempt = {
    wait?: number;
    /**
     * of messages that those who are asked for want
     */
    most: number;
    /**
     * of messages that it asks for
     */
    limit: number;
    after?: string;
    token?: string;
    headers?: boolean;
    sent?: number;
    begun?: number;
    silent?: boolean;
};
