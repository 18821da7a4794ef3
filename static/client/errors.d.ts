/** What the service refuses, and what answers in its place. */
export declare const FOREIGN = "foreign_answer";
export declare const STALE = "stale_answer";
export declare const UNKNOWN = "outcome_unknown";
/**
 * A refusal: `status` and, from the service's problem details, the stable `code` and the sentence in `detail`. Two
 * codes are the client's: `foreign_answer`, because something between here and the service answered in its place, and
 * `stale_answer`, because something gave an old answer again. `outcome_unknown` is said by both: what was published may
 * be stored or not.
 */
export declare class NotifierError extends Error {
    status: number;
    code: any;
    detail: any;
    retryAfter: number;
    /** @param {number} status  @param {any} problem  @param {number} [retryAfter] milliseconds, 0 unless asked for */
    constructor(status: number, { code, detail }: any, retryAfter?: number);
    /** Whether the same request may succeed later. Only what the service itself says is final. */
    get temporary(): boolean;
}
/** What is said beside `code`. */
export declare const doubt: (/** @type {string} */ code: string) => "" | " The message may be stored or not.";
/**
 * The error for an answer that is not the right one. What is not the service's means `code`, except for a 4xx: a 5xx may
 * only have lost patience, and a 2xx may be of what has been done.
 *
 * @param {Response} response  @param {string} code
 */
export declare function refusal(response: Response, code: string): Promise<NotifierError>;
