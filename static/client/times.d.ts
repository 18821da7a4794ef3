/** Clocks, pauses and deadlines. */
export declare const BACKOFF_CAP = 30000;
export declare const LATE = 10000;
/** Milliseconds to wait after `failures` failed attempts, the first being 0: full jitter, doubling up to a cap. */
export declare function backoff(/** @type {number} */ failures: number, random?: number, cap?: number): number;
/** Milliseconds that `Retry-After`, in seconds or as a date, asks to wait; 0 without one. */
export declare function retryAfter(/** @type {Headers} */ headers: Headers, now?: number): number;
/** Milliseconds that have passed. */
export declare function elapsed(/** @type {number | undefined} */ since?: number | undefined): number;
/**
 * Calls `late` once `ms` have passed on either clock, because timers stand still while a machine sleeps, and says
 * whether the machine slept. Returns a function that cancels it.
 *
 * @param {number} ms  @param {(slept: boolean) => void} late
 */
export declare function deadline(ms: number, late: (slept: boolean) => void): () => void;
