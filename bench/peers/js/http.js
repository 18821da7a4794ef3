// node:http, without a framework.

import { createServer } from "node:http";
import { json } from "node:stream/consumers";

import { poll, publish } from "./topics.js";

function send(response, status, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  response.end(text);
}

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  const [, what, topic] = pathname.split("/", 3);
  if (request.method === "GET" && what === "poll") {
    poll(topic, Number(searchParams.get("after")) || 0, response, (found) => send(response, 200, found));
  } else if (request.method === "POST" && what === "publish") {
    try {
      send(response, 201, publish(topic, await json(request)));
    } catch {
      send(response, 400, { error: "not JSON" });
    }
  } else if (pathname === "/health") {
    send(response, 200, { status: "ok" });
  } else {
    send(response, 404, { error: "not found" });
  }
});

server.keepAliveTimeout = 75_000;
server.listen(process.env.PORT, "127.0.0.1");
