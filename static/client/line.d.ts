/** What gets through to the service and back: how long a poll may park, and how much an answer may hold. */
export type Poll = import("./poll.js").Poll;
/** @typedef {import("./poll.js").Poll} Poll */
export declare const LONGEST_WAIT = 28;
export declare const CUT = 1000;
export declare class Line {
    #private;
    /** Messages to ask for. */
    limit: number;
    /** Seconds that a poll may park; undefined is what the server thinks best. Whole ones, as Prefer has them. */
    wait(/** @type {number} */ longest: number): number | undefined;
    /** An answer with `count` messages has come. */
    carried(/** @type {Poll} */ { wait, begun, limit, most }: Poll, /** @type {number} */ count: number): void;
    /**
     * Nothing has come, or only a part. Returns whether that means nothing yet: something in between may have cut a poll
     * because it parked for long. Once this may happen, twice it is a habit, and three times a fault.
     */
    broke(/** @type {Poll} */ { wait, sent, begun, silent, limit }: Poll): boolean;
}
