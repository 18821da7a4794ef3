/** What is sent for what is published. */
/**
 * What is sent for `data`, and its type.
 *
 * @param {any} data  @param {string} [contentType]  @returns {{ body: any, type: string }}
 */
export declare function written(data: any, contentType?: string): {
    body: any;
    type: string;
};
