/** The polls of a connection: for which subscriptions each asks, and what they get of an answer. */
import { Poll } from "./poll.js";
import { Requests } from "./requests.js";
export type Connecting = import("../client.js").Connecting;
export type Message = import("../client.js").Message;
export type Retry = import("../client.js").Retry;
export type State = import("../client.js").State;
export type Place = import("./subscription.js").Place;
export type Tabs = import("./tabs.js").Tabs;
/**
 * Subscriptions that have everything wait together, with one poll: a list has one cursor whatever is in it. Those that
 * are behind (new ones, slow ones, all after a failure) are looked after beside it, by requests that do not wait, one at
 * a time. So a connection has two requests under way at the most.
 */
export declare class Polls {
    #private;
    /** @type {State} */
    state: State;
    /** @type {Set<(state: State, retry?: Retry) => void>} */
    listeners: Set<(state: State, retry?: Retry) => void>;
    /** @type {Set<Place>} */
    places: Set<Place>;
    requests: Requests;
    constructor(/** @type {Connecting} */ options: Connecting);
    /** Whether it has no subscriptions. */
    get idle(): boolean;
    url(/** @type {string[]} */ items: string[]): string;
    enter(/** @type {Place} */ place: Place): void;
    leave(/** @type {Place} */ place: Place): void;
    close(): void;
    retryNow(): void;
    /** A subscription has come, has gone, or waits for its next message. */
    changed(): void;
    /**
     * An answer has come: gives each subscription what concerns it.
     *
     * @param {Pick<Poll, "asked" | "limit">} poll  @param {any} answer  @param {string} text  @param {boolean} [several]
     */
    settle({ asked, limit }: Pick<Poll, "asked" | "limit">, { messages, cursor, gap }: any, text: string, several?: boolean): void;
}
