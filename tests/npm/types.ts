/** Uses everything that the package says it has, so that `tsc` finds what its declarations do not allow, or allow wrongly. */

import { NotifierError, connect, publish, subscribe } from "pg-notifier";
import type { Connecting, Connection, Following, Gap, Message, Publishing, Retry, Sending, State, Store, Subscription } from "pg-notifier";

interface Order {
  status: "new" | "paid";
}

const options: Connecting = {
  url: new URL("https://notifier.example.com/below"),
  token: async (refused?: string) => (refused ? "another" : undefined),
  share: true,
  headers: { "X-Tenant": "acme" },
  fetch: globalThis.fetch,
  parse: (text: string) => JSON.parse(text),
  onError: (error: Error, delay?: number) => console.warn(error.message, delay ?? "the end"),
};
const notifier: Connection = connect(options);
connect();
connect({ url: "https://notifier.example.com", key: "nk_1", share: "shop" });
connect({ token: "t1", headers: new Headers({ "X-Tenant": "acme" }) });

const store: Store = localStorage;
const asynchronous: Store = { getItem: async () => null, setItem: async (_key: string, _cursor: string) => {} };
const following: Following = {
  after: "41",
  since: "10m",
  last: 10,
  lastEach: 1,
  limit: 500,
  wait: 20,
  store,
  signal: AbortSignal.timeout(1_000),
  onGap: async (gap: Gap) => gap.reason === "reset" && gap.after,
  onError: (error) => console.error(error.name),
  onState: (state: State, retry?: Retry) => console.log(state, retry?.delay, retry?.error.message),
};

async function all(): Promise<void> {
  const orders: Subscription<Order> = notifier.subscribe<Order>(["orders/*", "refunds/*"], following);
  for await (const message of orders) {
    const { id, topic, time, data, title, click, priority, tags, content_type, encoding }: Message<Order> = message;
    const status: "new" | "paid" = data.status;
    // @ts-expect-error  an order has no such thing
    data.colour;
    console.log(id, topic, time, status, title, click, priority?.toFixed(), tags?.join(), content_type, encoding);
    if (orders.cursor === id) break;
  }
  for await (const batch of notifier.subscribe<Order>("orders/*").batches()) console.log(batch[0]?.data.status);
  const { value, done } = await orders.next();
  if (!done) console.log(value.data.status);
  await orders.return();

  const stop: () => void = notifier.subscribe<Order>("orders/*", async ({ data }) => console.log(data.status), {
    store: asynchronous,
    after: 0,
  });
  stop();

  const fields: Publishing = { title: "Paid", click: "https://x.example", priority: 4, tags: ["money"] };
  const published: { id: string; topic: string } = await notifier.publish("orders/42", { status: "paid" }, fields);
  await notifier.publish("log", "plain", { contentType: "text/plain", tags: "a,b", signal: AbortSignal.timeout(5) });
  const batch = [{ topic: "a", data: 1 }, { topic: "b", data: null, ...fields }];
  const sending: Sending = { idempotencyKey: crypto.randomUUID(), signal: AbortSignal.timeout(5_000) };
  const ids: string[] = await notifier.publishAll(batch, sending);
  let before: string | null = "latest";
  while (before) {
    const page: { messages: Message<Order>[]; before: string | null } = await notifier.history<Order>("orders/*", {
      before,
      last: 50,
    });
    before = page.before;
  }
  const state: State = notifier.state;
  const off = notifier.onState((now) => console.log(now === "live"));
  off();
  notifier.retryNow();
  notifier.close();

  for await (const { data } of subscribe<Order>("orders/*", { ...options, ...following })) console.log(data.status);
  await publish("orders/42", { status: "paid" }, { key: "nk_1", contentType: "application/json", ...fields });
  console.log(published.id, ids.length, state);
  // @ts-expect-error  there is no such option
  notifier.subscribe("a", { from: "latest" });
  // @ts-expect-error  a topic is text
  notifier.publish(42, {});
}

all().catch((error: unknown) => {
  if (error instanceof NotifierError) console.error(error.status, error.code, error.detail, error.temporary, error.retryAfter);
});
