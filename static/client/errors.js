/** What the service refuses, and what answers in its place. */

import { retryAfter } from "./times.js";

export const FOREIGN = "foreign_answer";
export const STALE = "stale_answer";
export const UNKNOWN = "outcome_unknown";

/**
 * A refusal: `status` and, from the service's problem details, the stable `code` and the sentence in `detail`. Two
 * codes are the client's: `foreign_answer`, because something between here and the service answered in its place, and
 * `stale_answer`, because something gave an old answer again. `outcome_unknown` is said by both: what was published may
 * be stored or not.
 */
export class NotifierError extends Error {
  /** @param {number} status  @param {any} problem  @param {number} [retryAfter] milliseconds, 0 unless asked for */
  constructor(status, { code, detail = "" }, retryAfter = 0) {
    super(`${status} ${code}${detail && `: ${detail}`}`);
    this.name = "NotifierError";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. Only what the service itself says is final. */
  get temporary() {
    return this.status >= 500 || [408, 425, 429].includes(this.status) || [FOREIGN, STALE].includes(this.code);
  }
}

/** What is said beside `code`. */
export const doubt = (/** @type {string} */ code) => (code === UNKNOWN ? " The message may be stored or not." : "");

/**
 * The error for an answer that is not the right one. What is not the service's means `code`, except for a 4xx: a 5xx may
 * only have lost patience, and a 2xx may be of what has been done.
 *
 * @param {Response} response  @param {string} code
 */
export async function refusal(response, code) {
  const { headers, status, url, body } = response;
  const ours = /^application\/problem\+json\b/i.test(headers.get("content-type") ?? "");
  const problem = ours && (await response.json().catch(() => null));
  if (typeof problem?.code === "string") return new NotifierError(status, problem, retryAfter(headers));
  body?.cancel().catch(() => {}); // it may have been read, and it may never end
  if (!response.ok && status < 500) code = FOREIGN;
  const what = status || "a redirect"; // which browsers do not show
  const detail = `Something other than Notifier answers at ${url.split("/v1/")[0]}, with ${what}.${doubt(code)}`;
  return new NotifierError(status, { code, detail }, retryAfter(headers));
}
