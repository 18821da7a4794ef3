/** A subscription: topics and patterns, and a cursor of its own. */
export type Message<T = any> = import("../client.js").Message<T>;
export type Following = import("../client.js").Following;
export type Gap = import("../client.js").Gap;
export type Retry = import("../client.js").Retry;
export type State = import("../client.js").State;
export type Polls = import("./polls.js").Polls;
/**
 * @template [T=any]
 * @typedef {import("../client.js").Message<T>} Message
 */
/** @typedef {import("../client.js").Following} Following */
/** @typedef {import("../client.js").Gap} Gap */
/** @typedef {import("../client.js").Retry} Retry */
/** @typedef {import("../client.js").State} State */
/** @typedef {import("./polls.js").Polls} Polls */
export declare const LIMIT = 100;
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
    /** @param {string | string[]} topics  @param {Following} options  @param {Polls} polls */
    constructor(topics: string | string[], options: Following, polls: Polls);
    /** Where to resume. It passes a message only when the next one is awaited: a message in hand comes again. */
    get cursor(): string | undefined;
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
/** What a subscription and its connection know of it. */
export declare class Place {
    #private;
    limit: number;
    wait: number;
    items: string[];
    pattern: RegExp;
    /** Where to begin, as long as no cursor says so. */
    begin: {
        since: string | undefined;
        last: number | undefined;
        last_each: number | undefined;
    };
    /** Up to where its caller has dealt with everything. @type {string | undefined} */
    cursor: string | undefined;
    /** Up to where everything has been handed to it. @type {string | undefined} */
    read: string | undefined;
    /** Messages, and `{ gap }` where some were lost. @type {any[]} */
    queue: any[];
    over: boolean;
    /** Whether its next message is awaited: only then is anything asked for. */
    waits: boolean;
    /** Whether it has all that there was when it asked last: then it may wait with the others. */
    fresh: boolean;
    /** Whether it must be asked for alone, because an answer to several concerned one of them. */
    alone: boolean;
    /** @param {string | string[]} topics  @param {Following} options  @param {Polls} polls */
    constructor(topics: string | string[], options: Following, polls: Polls);
    /** Whether one request can be for it and for others. */
    get joins(): boolean;
    /** @param {(queue: any[]) => any} taken  @returns {Promise<IteratorResult<any, undefined>>} */
    next(taken: (queue: any[]) => any): Promise<IteratorResult<any, undefined>>;
    /** An answer has come. @param {Message[]} messages  @param {string} cursor  @param {Gap} [gap] */
    take(messages: Message[], cursor: string, gap?: Gap): void;
    /** With an error once what came before it has been handed out. @param {any} [error] */
    end(error?: any): void;
    /** Returns whether anybody listens. @param {State} state  @param {Retry} [retry] */
    tell(state: State, retry?: Retry): boolean;
}
