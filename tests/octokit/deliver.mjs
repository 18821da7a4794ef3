// Every example of GitHub's webhooks: signed by octokit, sent, read back, and verified by octokit as a receiver would.
// node deliver.mjs URL SECRET; prints of each its topic, its id, its event and the hash of its body, as they should be.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { sign, verify } from "@octokit/webhooks-methods";

const [url, secret] = process.argv.slice(2);
const definitions = createRequire(import.meta.url)("@octokit/webhooks-examples");
const forms = [
  ["application/json", (payload) => JSON.stringify(payload)],
  ["application/x-www-form-urlencoded", (payload) => "payload=" + encodeURIComponent(JSON.stringify(payload))],
];

async function deliver(event, payload, type, body) {
  const sent = await fetch(`${url}/hooks/github`, {
    method: "POST",
    body,
    headers: {
      "Content-Type": type,
      "X-GitHub-Event": event,
      "X-GitHub-Delivery": crypto.randomUUID(),
      "X-Hub-Signature-256": await sign(secret, body),
    },
  });
  if (sent.status !== 200) throw new Error(`${event}: ${sent.status} ${await sent.text()}`);
  const { id } = await sent.json();
  let back;
  for (let left = 10; left > 0 && back?.status !== 200; left--) back = await fetch(`${url}/v1/messages/${id}`); // 503: busy
  if (back.status !== 200) throw new Error(`${event}: ${back.status}`);
  const text = await back.text();
  const kept = (name) => back.headers.get(`Notifier-Header-${name}`);
  if (text !== body) throw new Error(`${event}: the body is another`);
  if (back.headers.get("Content-Type") !== type) throw new Error(`${event}: ${back.headers.get("Content-Type")}`);
  if (kept("X-GitHub-Event") !== event) throw new Error(`${event}: its name is not kept`);
  if (!(await verify(secret, text, kept("X-Hub-Signature-256")))) throw new Error(`${event}: octokit refuses it`);
  const owner = payload.repository?.full_name ?? payload.organization?.login ?? "_";
  return [`github/${owner}/${event}`, id, event, createHash("sha256").update(body).digest("hex")];
}

const work = definitions.flatMap(({ name, examples }) =>
  examples.map((payload, at) => [name, payload, forms[at % forms.length]]),
);
const delivered = [];
async function worker() {
  for (let next; (next = work.pop()); ) {
    const [event, payload, [type, make]] = next;
    delivered.push(await deliver(event, payload, type, make(payload)));
  }
}
await Promise.all(Array.from({ length: 8 }, worker));
console.log(JSON.stringify(delivered));
