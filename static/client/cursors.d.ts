/** How cursors are ordered. */
export type Place = import("./subscription.js").Place;
/** @typedef {import("./subscription.js").Place} Place */
/** A cursor as a number. NaN where it is none, such as "latest": that is neither before nor after another. */
export declare function number(/** @type {string | undefined} */ cursor?: string | undefined): number | bigint;
/** The least of those up to which `places` have read. */
export declare function least(/** @type {Place[]} */ places: Place[]): string | undefined;
