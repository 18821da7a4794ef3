/** How times, topics and bytes look. */

const AGES = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1_000, "s"],
];
const HUES = 24; // the style has a colour for each; notifier/web/rows.py counts in the same way

// Made once: that takes ten times as long as to use them, and in a burst it was half of the work.
const dayOf = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const timeOf = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
});
const minuteOf = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export function clock(time) {
  const date = new Date(time);
  return (Date.now() - date > 43_200_000 ? `${dayOf.format(date)} ` : "") + timeOf.format(date);
}

/** A time of today, in milliseconds, to the minute. */
export const hourAndMinute = (ms) => minuteOf.format(ms);

export function age(time) {
  const past = Date.now() - Date.parse(time);
  const [length, unit] = AGES.find(([each]) => past >= each) ?? [1_000, "s"];
  return `${Math.max(0, Math.floor(past / length))} ${unit}`;
}

/** Shows `topic` in `element`, in the colour that all topics with the same first segment have. */
export function showTopic(element, topic) {
  let number = 0;
  for (const character of topic.split("/", 1)[0]) number = (number * 31 + character.codePointAt(0)) % 360;
  element.dataset.hue = String(Math.floor((number * HUES) / 360));
  element.textContent = topic;
}

export const inWords = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

/** What is said of a message whose payload is neither JSON nor text. */
export function sized({ data, content_type: type }) {
  const bytes = Math.floor((data.length * 3) / 4) - data.match(/=*$/)[0].length;
  return `${type}, ${bytes.toLocaleString("en")} bytes`;
}
