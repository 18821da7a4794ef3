/** One poll: whom it asks for, and from where. */
export type Line = import("./line.js").Line;
export type Place = import("./subscription.js").Place;
export declare const INTERRUPTED: Error;
export declare class Poll {
    /** Up to where each of them has read. */
    asked: Map<import("./subscription.js").Place, string | undefined>;
    items: Set<string>;
    after: string | undefined;
    /** Seconds; undefined is what the server thinks best. */
    wait: number | undefined;
    /** Messages that those who are asked for want, and that it asks for. */
    most: number;
    limit: number;
    patience: number;
    late: (asleep: boolean) => void;
    control: AbortController;
    right: (/** @type {any} */ { messages, cursor }: any) => boolean;
    /** @type {string | undefined} */
    token: string | undefined;
    /** @type {number | undefined} */
    sent: number | undefined;
    /** @type {number | undefined} */
    begun: number | undefined;
    /** Whether its answer was given up. */
    silent: boolean;
    /** Whether headers say where it goes on from. */
    headers: boolean;
    /** @param {Place[]} places  @param {Line} line  @param {boolean} parks  @param {() => void} slept */
    constructor(places: Place[], line: Line, parks: boolean, slept: () => void);
    /** Whether it is for `place` too, or can be. */
    joined(/** @type {Place} */ place: Place): boolean;
}
/** What makes one poll after the other, as long as there is something to ask for. */
export declare class Loop {
    runs: boolean;
    /** @type {Poll | undefined} */
    poll: Poll | undefined;
    /** How many answers in a row came at once with nothing new. */
    idle: number;
    /** @type {Promise<unknown> | undefined} */
    paused: Promise<unknown> | undefined;
    wake: () => void;
    /** Ends the poll or the pause under way. */
    interrupt(): void;
}
/** Makes them ask at once, before they wait again. */
export declare function behind(/** @type {Iterable<Place>} */ places: Iterable<Place>): void;
/** Makes each ask for itself, because what was said to several concerns one of them. */
export declare function alone(/** @type {Iterable<Place>} */ places: Iterable<Place>): void;
/** `places` in lists that one poll may ask for. */
export declare function packed(/** @type {Place[]} */ places: Place[]): import("./subscription.js").Place[][];
