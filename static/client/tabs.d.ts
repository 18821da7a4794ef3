/**
 * Tabs of one user that have one poll. One of them leads: it holds a lock, polls for all, and passes on each answer with
 * the cursor that it goes on from. All have cursors of their own, and take only what goes on from there. So nothing is
 * lost or repeated where none leads, or two do, or a tab has slept: only requests are.
 *
 * Only pages that share their poll load this module.
 */
export type Poll = import("./poll.js").Poll;
export type Polls = import("./polls.js").Polls;
export type Place = import("./subscription.js").Place;
export declare class Tabs {
    #private;
    leads: boolean;
    /** @param {Polls} polls  @param {boolean | string | undefined} share */
    constructor(polls: Polls, share: boolean | string | undefined);
    /** Joins the tabs that show the same service to the same user, whose `token` it is. */
    join(token?: string): void;
    /** Leaves them. */
    part(): void;
    /**
     * Does `work`, a request beside the poll, when no other tab is at one: together the tabs have two at the most. One
     * that has stopped meanwhile is not waited for. `work` must not reject.
     *
     * @param {() => Promise<void>} work
     */
    turn(work: () => Promise<void>): Promise<void>;
    /** What the other tabs follow. @returns {Place[]} */
    others(): Place[];
    /** Passes on what concerns the other tabs. */
    pass(/** @type {Poll} */ { wait, items, after }: Poll, /** @type {any} */ { gap }: any, /** @type {string} */ text: string): void;
    /** One of what the tabs follow is refused: each finds out for itself whether it is its own. */
    refused(): void;
    /** Tells the tab that leads what this one follows. */
    tell(): void;
    say(/** @type {any} */ what: any): void;
}
