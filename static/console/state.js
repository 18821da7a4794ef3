/** The bar that says whether the page follows what happens. */

import { $ } from "./page.js";

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  retrying: "Reconnecting",
  stopped: "Stopped",
  paused: "Paused",
};

/** Why it waits: when the next attempt is made, and what went wrong.  @param {import("../client.js").Retry} [retry] */
export const reasonOf = (retry) =>
  retry ? `in ${Math.ceil(retry.delay / 1_000)} s: ${retry.error.detail || retry.error.message}` : "";

/** @param {keyof typeof WORDS} state  @param {string} reason  or whatever else is to be said of it */
export function showState(state, reason) {
  $("now").dataset.state = state;
  $("state").textContent = WORDS[state];
  $("reason").textContent = reason;
}
