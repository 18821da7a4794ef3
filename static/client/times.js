/** Clocks, pauses and deadlines. */

const BACKOFF = 500; // ms
export const BACKOFF_CAP = 30_000;
const RETRY_AFTER_CAP = 3_600_000; // no server means to keep a client away for longer
export const LATE = 10_000; // what has not begun to come for so long, will not
const LOOK = 5_000;
const SLEPT = 30_000; // a timer this late was not slow: the machine slept

/** Milliseconds to wait after `failures` failed attempts, the first being 0: full jitter, doubling up to a cap. */
export function backoff(/** @type {number} */ failures, random = Math.random(), cap = BACKOFF_CAP) {
  return random * Math.min(cap, BACKOFF * 2 ** failures);
}

/** Milliseconds that `Retry-After`, in seconds or as a date, asks to wait; 0 without one. */
export function retryAfter(/** @type {Headers} */ headers, now = Date.now()) {
  const value = headers.get("retry-after")?.trim() ?? "";
  const asked = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - now;
  return Math.min(Math.max(asked || 0, 0), RETRY_AFTER_CAP);
}

/** Milliseconds that have passed. */
export function elapsed(/** @type {number | undefined} */ since = NaN) {
  return performance.now() - since;
}

/**
 * Calls `late` once `ms` have passed on either clock, because timers stand still while a machine sleeps, and says
 * whether the machine slept. Returns a function that cancels it.
 *
 * @param {number} ms  @param {(slept: boolean) => void} late
 */
export function deadline(ms, late) {
  const wall = Date.now();
  const steady = performance.now();
  const timer = setInterval(() => {
    const passed = Math.max(Date.now() - wall, elapsed(steady));
    if (passed >= ms) late(passed >= ms + SLEPT);
  }, LOOK);
  return () => clearInterval(timer);
}
