/** The past: older rows below the others, or those of another time in their place. */

import { fragment } from "./commands.js";
import * as feed from "./feed.js";
import { $ } from "./page.js";
import { get } from "./session.js";
import { onWatch, watched } from "./watching.js";

const OLDER = 100; // rows that scrolling brings

/** Whether there is, as far as is known, something older than the rows. */
let more = true;
/** What is being loaded, while something is. */
let loading;

/** A page of the history of `topics`. */
async function page(topics, query) {
  return (await get(`v1/topics/${fragment(topics.join())}?${new URLSearchParams(query)}`)).json();
}

/** Puts the rows that `load` finds in their place, unless something else is wanted by then. */
async function put(load, rows) {
  const of = watched();
  if (of.stopped) return;
  const mine = (loading = {});
  tell();
  let error;
  try {
    const answer = await load(of.topics);
    if (mine !== loading) return;
    rows(answer.messages);
    more = answer.before !== null;
  } catch (failed) {
    error = failed;
  }
  if (mine !== loading) return;
  loading = undefined;
  tell(error?.message);
  if (error) return;
  // Still in view, it would not be told again.
  bottom.unobserve($("older"));
  bottom.observe($("older"));
}

/** Loads what is older than the rows. */
export async function loadOlder() {
  if (loading || !more) return;
  await put((topics) => page(topics, { before: feed.oldest() ?? "latest", limit: OLDER }), feed.addOlder);
}

/** Shows what was published up to `time`, in milliseconds, in the place of the rows. */
export function goTo(time) {
  return put(async (topics) => {
    const since = new Date(time).toISOString();
    const { messages, cursor } = await page(topics, { since, limit: 1, wait: 0 });
    const before = messages.length ? messages[0].id : String(BigInt(cursor) + 1n);
    return page(topics, { before, limit: OLDER });
  }, feed.showPast);
}

function tell(error = "") {
  $("older-error").textContent = error;
  $("older").disabled = Boolean(loading) || !more;
  $("older").textContent = loading ? "Loading…" : more ? "Older messages" : "The beginning";
}

const bottom = new IntersectionObserver(
  (seen) => seen.at(-1).isIntersecting && !feed.isEmpty() && !$("filter").value.trim() && loadOlder(),
  { root: $("feed"), rootMargin: "600px" },
);

onWatch(() => {
  more = true;
  loading = undefined;
  tell();
});
bottom.observe($("older"));
