/** How cursors are ordered. */

/** @typedef {import("./subscription.js").Place} Place */

/** A cursor as a number. NaN where it is none, such as "latest": that is neither before nor after another. */
export function number(/** @type {string | undefined} */ cursor = "") {
  return /^\d+$/.test(cursor) ? BigInt(cursor) : NaN;
}

/** The least of those up to which `places` have read. */
export function least(/** @type {Place[]} */ places) {
  const cursors = places.map(({ read }) => read);
  return cursors.reduce((one, other) => (number(other) < number(one) ? other : one), cursors[0]);
}
