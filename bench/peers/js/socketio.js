// Socket.IO over its polling transport alone: a client emits "subscribe" with a topic and is told when it is in that
// room; "message" then brings { id, data }.

import { createServer } from "node:http";
import { json } from "node:stream/consumers";

import { Server } from "socket.io";

let last = 0;

const server = createServer(async (request, response) => {
  const [, what, topic] = request.url.split("/", 3);
  if (request.method === "POST" && what === "publish") {
    const id = String(++last);
    try {
      io.to(topic).emit("message", { id, data: await json(request) });
      response.writeHead(201, { "Content-Type": "application/json" }).end(JSON.stringify({ id }));
    } catch {
      response.writeHead(400).end();
    }
  } else {
    response.writeHead(what === "health" ? 200 : 404).end();
  }
});

const io = new Server(server, { transports: ["polling"], serveClient: false });

io.on("connection", (socket) => {
  socket.on("subscribe", async (topic, done) => {
    await socket.join(topic);
    done?.();
  });
});

server.keepAliveTimeout = 75_000;
server.listen(process.env.PORT, "127.0.0.1");
