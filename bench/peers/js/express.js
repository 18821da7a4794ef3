import express from "express";

import { poll, publish } from "./topics.js";

const app = express();
app.use(express.json({ strict: false })); // any JSON, not only objects

app.get("/poll/:topic", (request, response) => {
  poll(request.params.topic, Number(request.query.after) || 0, response, (found) => response.json(found));
});

app.post("/publish/:topic", (request, response) => {
  response.status(201).json(publish(request.params.topic, request.body));
});

app.get("/health", (request, response) => {
  response.json({ status: "ok" });
});

const server = app.listen(process.env.PORT, "127.0.0.1");
server.keepAliveTimeout = 75_000;
