// A receiver as applications write it, with octokit's own middleware; of forms, which that does not take, the signature
// is verified. node receive.mjs SECRET; prints its port, then of each webhook its id, its event and the hash of its body.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { Webhooks, createNodeMiddleware } from "@octokit/webhooks";

const webhooks = new Webhooks({ secret: process.argv[2], log: { debug() {}, info() {}, warn() {}, error() {} } });
const middleware = createNodeMiddleware(webhooks, { path: "/webhooks" });
const names = new Map();
webhooks.onAny(({ id, name }) => names.set(id, name));

createServer(async (request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  const ended = new Promise((resolve) => request.on("end", resolve));
  const delivery = request.headers["x-github-delivery"];
  response.on("finish", () => {
    if (response.statusCode !== 200) return;
    const hash = createHash("sha256").update(Buffer.concat(chunks)).digest("hex");
    console.log([request.headers["notifier-id"], names.get(delivery), hash].join(" "));
  });
  if (request.headers["content-type"] === "application/json") return middleware(request, response);
  await ended;
  const good = await webhooks.verify(Buffer.concat(chunks).toString(), request.headers["x-hub-signature-256"]);
  if (good) names.set(delivery, request.headers["x-github-event"]);
  response.writeHead(good ? 200 : 401).end();
}).listen(0, "127.0.0.1", function () {
  console.log(this.address().port);
});
