/** Requests: where they go, what they show of their caller, and what becomes of them. */
export type Connecting = import("../client.js").Connecting;
export type Exchange = {
    control: AbortController;
    patience: number;
    late: (slept: boolean) => void;
    right: (answer: any) => boolean;
    /**
     * FOREIGN, or UNKNOWN for what may have been done
     */
    code?: string;
    token?: string;
    sent?: number;
    begun?: number;
};
/** The requests of one connection, which are all of one user. */
export declare class Requests {
    #private;
    /** Whether another token may be had when one is refused. */
    renews: boolean;
    /** Throws for options that no request can be made with. */
    constructor(/** @type {Connecting} */ options: Connecting);
    url(/** @type {string[]} */ items: string[]): string;
    /**
     * Asks, with a new token where one is refused, and throws unless the answer is right.
     *
     * @param {Exchange} exchange  @param {string} url  @param {RequestInit} init
     */
    ask(exchange: Exchange, url: string, init: RequestInit): Promise<{
        answer: any;
        text: string;
        response: Response;
    }>;
}
/** The fields that have a value, as a query string. */
export declare function query(/** @type {Record<string, any>} */ fields: Record<string, any>): string;
