// The newest messages of each topic, and the polls that wait for more. The same for all that serve it with node, so
// that only the frameworks differ.

const KEPT = 100;
const WAIT_MS = 25_000;

const topics = new Map(); // name → { messages: [{ id, data }], waiting: Set of functions }
let last = 0;

function open(name) {
  let topic = topics.get(name);
  if (!topic) topics.set(name, (topic = { messages: [], waiting: new Set() }));
  return topic;
}

function since({ messages }, after) {
  const found = messages.slice(messages.findLastIndex(({ id }) => Number(id) <= after) + 1);
  return { cursor: found.at(-1)?.id ?? String(after), messages: found };
}

export function publish(name, data) {
  const topic = open(name);
  const id = String(++last);
  topic.messages.push({ id, data });
  if (topic.messages.length > KEPT) topic.messages.shift();
  const { waiting } = topic;
  topic.waiting = new Set();
  for (const wake of waiting) wake();
  return { id };
}

// Calls `answer` once with { cursor, messages }: at once, or when there are some, or when the wait is over. Not when
// the client has hung up before; then nothing of the poll stays.
export function poll(name, after, response, answer) {
  const topic = open(name);
  const found = since(topic, after);
  if (found.messages.length) return answer(found);
  const stop = () => {
    clearTimeout(timer);
    topic.waiting.delete(wake);
  };
  const wake = () => {
    stop();
    answer(since(topic, after));
  };
  const timer = setTimeout(wake, WAIT_MS);
  topic.waiting.add(wake);
  response.once("close", stop);
}
