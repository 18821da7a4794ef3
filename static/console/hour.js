/** The last hour of what is watched: a bar for each minute. What the server does not know is not shown as nothing. */

import { hourAndMinute, inWords } from "./looks.js";
import { $ } from "./page.js";
import { get } from "./session.js";

const MINUTES = 60;
const MINUTE = 60_000;
const HEIGHT = 24; // of the drawing
const SOON = 200; // milliseconds until what has come is drawn
const EARLY = 10_000; // messages that are kept until the server has said which of them it has counted

/** How many came in each minute; null: that is not known. The last one is `newest`, in minutes since 1970. */
let counts = Array(MINUTES).fill(null);
let newest = minuteOf(Date.now());
/** The id up to which the server has counted, once it has said so. */
let counted;
/** The messages that came before. */
let early = [];
/** The minute that is shown in the place of now. */
let chosen;
let asked = 0;
let waits;
let choose = () => {};

function minuteOf(ms) {
  return Math.floor(ms / MINUTE);
}

/** Calls `then` with the end of a minute, in milliseconds, that is chosen; with nothing for the one that is not over. */
export const onChoice = (then) => (choose = then);

/** Begins anew, with the messages of other topics. */
export async function begin(topics) {
  const mine = (asked += 1);
  counts = Array(MINUTES).fill(null);
  newest = minuteOf(Date.now());
  counted = chosen = undefined;
  early = [];
  $("minute").value = String(MINUTES - 1);
  redraw();
  const answer = await get(`v1/counts?${new URLSearchParams({ match: topics.join() })}`).then(
    (response) => response.json(),
    () => undefined, // it is said elsewhere what is wrong
  );
  if (mine !== asked || !answer) return;
  counts = answer.counts;
  newest = minuteOf(Date.parse(answer.end)) - 1;
  counted = BigInt(answer.cursor);
  count(early);
  early = [];
  redraw();
}

/** Counts messages that have just come. */
export function add(messages) {
  if (counted === undefined) early = early.concat(messages.map(({ id, time }) => ({ id, time }))).slice(-EARLY);
  else count(messages);
  redraw();
}

/** Messages in the order of their ids: those up to `counted` the server has counted. */
function count(messages) {
  const first = messages.findIndex(({ id }) => BigInt(id) > counted);
  for (const { time } of first < 0 ? [] : messages.slice(first)) {
    const minute = minuteOf(Date.parse(time));
    moveTo(minute);
    const at = MINUTES - 1 - (newest - minute);
    if (at >= 0) counts[at] = (counts[at] ?? 0) + 1;
  }
}

/** Where the clocks of the server and of this machine differ, the later one counts. */
function moveTo(minute) {
  const passed = Math.min(minute - newest, MINUTES);
  if (passed <= 0) return;
  const known = counted === undefined ? null : 0;
  counts = [...counts.slice(passed), ...Array(passed).fill(known)];
  newest = minute;
}

/** In a burst, the rows need the time more. */
const redraw = () => (waits ??= setTimeout(draw, SOON));

function draw() {
  waits = undefined;
  moveTo(minuteOf(Date.now()));
  const highest = Math.max(1, ...counts);
  const bar = (messages, at) => {
    const height = messages ? Math.max(1.5, (messages / highest) * HEIGHT) : 0.5;
    return `M${at + 0.1},${HEIGHT}v-${height.toFixed(2)}h.8V${HEIGHT}z`;
  };
  $("hour-bars").setAttribute("d", counts.map((messages, at) => (messages === null ? "" : bar(messages, at))).join(""));
  const unknown = counts.lastIndexOf(null) + 1;
  $("hour-unknown").setAttribute("d", unknown ? `M0,${HEIGHT - 1}H${unknown}` : "");
  const left = chosen === undefined ? MINUTES - 1 : Math.max(0, MINUTES - 1 - (newest - chosen));
  $("minute").value = String(left);
  tell();
}

/** What is said of the minute at `at`; of all of them without one. */
function tell(at = chosen === undefined ? undefined : Number($("minute").value)) {
  const first = counts.lastIndexOf(null) + 1;
  const begun = (place) => hourAndMinute((newest - MINUTES + 1 + place) * MINUTE);
  const sum = counts.slice(first).reduce((all, one) => all + one, 0);
  const since = first ? `since ${begun(first % MINUTES)}` : "in the last hour";
  const of = (place) => `${begun(place)}: ${counts[place] === null ? "not known" : inWords(counts[place], "message")}`;
  const all = first === MINUTES ? "The last hour is not known" : `${sum.toLocaleString("en")} ${since}`;
  $("hour-text").textContent = at === undefined ? all : of(at);
  const value = Number($("minute").value);
  $("minute").setAttribute("aria-valuetext", value === MINUTES - 1 ? `now, ${of(value)}` : of(value));
}

$("minute").addEventListener("input", () => tell(Number($("minute").value)));
$("minute").addEventListener("change", () => {
  const at = Number($("minute").value);
  const minute = newest - MINUTES + 1 + at;
  chosen = at === MINUTES - 1 ? undefined : minute;
  choose(chosen === undefined ? undefined : (minute + 1) * MINUTE);
});
$("minute").addEventListener("pointermove", (event) => {
  const at = Math.floor((event.offsetX / $("minute").clientWidth) * MINUTES);
  tell(Math.min(Math.max(at, 0), MINUTES - 1));
});
$("minute").addEventListener("pointerleave", () => tell());
setInterval(() => !document.hidden && minuteOf(Date.now()) > newest && redraw(), 1_000);
