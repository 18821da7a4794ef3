import Fastify from "fastify";

import { poll, publish } from "./topics.js";

const app = Fastify({ keepAliveTimeout: 75_000 });

// Fastify compiles its answers from their shape. A property without one is any JSON.
const found = {
  type: "object",
  properties: {
    cursor: { type: "string" },
    messages: { type: "array", items: { type: "object", properties: { id: { type: "string" }, data: {} } } },
  },
};
const after = { type: "object", properties: { after: { type: "integer", default: 0 } } };

app.get("/poll/:topic", { schema: { querystring: after, response: { 200: found } } }, (request, reply) => {
  poll(request.params.topic, request.query.after, reply.raw, (answer) => reply.send(answer));
});

app.post("/publish/:topic", (request, reply) => {
  reply.code(201).send(publish(request.params.topic, request.body));
});

app.get("/health", (request, reply) => {
  reply.send({ status: "ok" });
});

await app.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
