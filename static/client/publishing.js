/** What is sent for what is published. */

/**
 * What is sent for `data`, and its type.
 *
 * @param {any} data  @param {string} [contentType]  @returns {{ body: any, type: string }}
 */
export function written(data, contentType) {
  if (data instanceof Blob || data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
    const { type } = /** @type {any} */ (data);
    return { body: data, type: contentType || type || "application/octet-stream" };
  }
  if (contentType && typeof data === "string") {
    if (/\p{Surrogate}/u.test(data)) throw new TypeError("the text has a lone surrogate");
    return { body: data, type: contentType };
  }
  if (contentType && !/[/+]json *(;|$)/i.test(contentType))
    throw new TypeError(`data of the type ${contentType} is given as text or bytes`);
  const body = JSON.stringify(data, faithful);
  if (body === undefined) throw new TypeError("this cannot be written as JSON");
  return { body, type: contentType || "application/json" };
}

/**
 * For JSON.stringify: TypeError for what it would change or leave out (a Map becomes {}, NaN becomes null).
 *
 * @this {any}  @param {string} key  @param {any} value
 */
function faithful(key, value) {
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  const fits =
    /^(Array|String|Boolean|Null)$/.test(kind) ||
    (kind === "Number" && Number.isFinite(Number(value))) ||
    (kind === "Object" && !(value[Symbol.iterator] || value[Symbol.asyncIterator])) ||
    (value === undefined && !Array.isArray(this)); // a member without a value is none
  if (fits) return value;
  const what = `${kind === "Number" ? value : kind}${key && ` as "${key}"`}`;
  throw new TypeError(`JSON cannot hold ${what}: give JSON values, text with its contentType, or bytes`);
}
