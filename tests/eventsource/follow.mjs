// Follows a list with the package `eventsource` as its users do: `node follow.mjs URL TOPICS LAST KEY`. Prints a line for
// each event, and ends with the message whose data is LAST.
import { EventSource } from "eventsource";

const [url, topics, last, key] = process.argv.slice(2);
const source = new EventSource(`${url}/v1/topics/${topics}`, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } }),
});
const print = (line) => console.log(JSON.stringify(line));
source.onopen = () => print({ open: true });
source.onerror = () => print({ error: true });
source.addEventListener("gap", ({ data }) => print({ gap: JSON.parse(data) }));
source.onmessage = ({ data, lastEventId }) => {
  const message = JSON.parse(data);
  print({ message, lastEventId });
  if (String(message.data) === last) source.close();
};
