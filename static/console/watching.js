/** What is watched: a subscription, and what becomes of what it brings. */

import { subscribe } from "../client.js";
import * as feed from "./feed.js";
import * as hour from "./hour.js";
import { $, moves } from "./page.js";
import { accessKey, askForKey, asksForKey } from "./session.js";
import { reasonOf, showState } from "./state.js";

const MOST = 1_000; // messages in one frame, and in one answer: a burst is drawn as often as the screen is

let subscription;
/** The topics and patterns that are watched, and where that began. */
let topics = [];
let beginning = {};
let paused = false;
let resume = () => {};
let state = "connecting";
let began = Infinity; // when it became live
/** Why it is in that state, where that is not plain. */
let reason = "";
/** Messages until the next frame. */
let pending = [];
/** The next frame, while something waits for it. */
let frame;
/** Messages in this second. */
let counted = 0;
let rate = 0;
let unseen = 0;
const anew = [];

/** Calls `then` each time something else is watched. */
export const onWatch = (then) => anew.push(then);

export const watched = () => ({ topics, stopped: state === "stopped" });

/** Watches `items` from `from` on, in the terms of the client. `keeps`: the rows that are there are the first ones. */
export function watch(items, from, keeps = false) {
  topics = items;
  beginning = from;
  pending = [];
  began = Infinity;
  if (!keeps) feed.clear();
  $("topics-error").textContent = "";
  $("topics").removeAttribute("aria-invalid");
  const followed = follow(beginning);
  for (const then of anew) then(topics);
  return followed;
}

/** Goes on where it was, at once: a person who asks for that need not wait until a busy server wants to be asked. */
export function reconnect() {
  const { cursor } = subscription;
  return follow(cursor === undefined ? beginning : { after: cursor });
}

async function follow(from) {
  subscription?.return();
  subscription = undefined;
  pause(false);
  let mine;
  const current = () => mine === subscription;
  try {
    mine = subscription = subscribe(topics, {
      ...from,
      limit: MOST,
      key: accessKey(),
      share: true, // a browser has six connections to a server over HTTP/1.1, for all tabs together
      onState: (next, retry) => current() && tell(next, retry),
      onGap: (gap) => current() && (draw(), feed.addGap(gap)),
    });
    for await (const message of mine) {
      // While this waits no poll is made: what comes is kept by the server, not by the page.
      if (paused) await new Promise((resolve) => (resume = resolve));
      if (!current()) return;
      pending.push(message);
      frame ??= nextFrame().then(draw);
      if (pending.length >= MOST) await frame;
    }
  } catch (error) {
    if (!current()) return;
    tell("stopped");
    feed.withdraw();
    if (asksForKey(error)) return askForKey(() => watch(topics, beginning), error);
    $("topics-error").textContent = error.detail || error.message;
    $("topics").setAttribute("aria-invalid", "true");
  }
}

/** A page that is not seen has no frames. */
const nextFrame = () => new Promise((resolve) => (requestAnimationFrame(resolve), setTimeout(resolve, 1_000)));

/** Puts all that has come since the last frame on the page, at once. */
function draw() {
  frame = undefined;
  if (!pending.length) return;
  const messages = pending;
  pending = [];
  if (Date.parse(messages[0].time) >= began) counted += messages.length; // not what was there
  feed.add(messages, began);
  hour.add(messages);
  announce(messages);
  if (moves()) $("dot").animate([{ boxShadow: "0 0 0 0 currentColor" }, { boxShadow: "0 0 0 0.5rem transparent" }], 600);
}

function tell(next, retry) {
  state = next;
  if (state === "live") began = Math.min(began, Date.now());
  reason = reasonOf(retry);
  show();
}

function show() {
  const shown = paused ? "paused" : state;
  const rates = shown === "live" && rate >= 10 ? `${rate.toLocaleString("en")} messages/s` : "";
  const held = shown === "paused" ? "what comes now waits on the server" : "";
  showState(shown, reason || rates || held);
  $("retry").hidden = state !== "retrying";
}

setInterval(() => {
  rate = counted;
  counted = 0;
  show();
}, 1_000);

/** Pauses, or goes on; unless it is said, whichever it does not do now. */
export function pause(on = !paused) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  $("pause").textContent = on ? "Resume" : "Pause";
  show();
  if (!on) resume();
}

let news = 0;

/** Tells screen readers about new messages, at most every two seconds; and a tab in the background, in its title. */
function announce(messages) {
  if (document.hidden) document.title = `(${(unseen += messages.length)}) Notifier`;
  if (!news) {
    setTimeout(() => {
      $("news").textContent = `${news === 1 ? "A new message" : `${news} new messages`}, last on ${messages.at(-1).topic}`;
      news = 0;
    }, 2_000);
  }
  news += messages.length;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = 0;
  document.title = "Notifier";
});
