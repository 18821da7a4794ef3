/** How times and topics look. */

const AGES = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1_000, "s"],
];

// Made once: that takes ten times as long as to use them, and in a burst it was half of the work.
const dayOf = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const timeOf = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
});

export function clock(time) {
  const date = new Date(time);
  return (Date.now() - date > 43_200_000 ? `${dayOf.format(date)} ` : "") + timeOf.format(date);
}

export function age(time) {
  const past = Date.now() - Date.parse(time);
  const [length, unit] = AGES.find(([each]) => past >= each) ?? [1_000, "s"];
  return `${Math.max(0, Math.floor(past / length))} ${unit}`;
}

/** The same colour for all topics with the same first segment. */
export function hue(topic) {
  let sum = 0;
  for (const character of topic.split("/", 1)[0]) sum = (sum * 31 + character.codePointAt(0)) % 360;
  return sum;
}
