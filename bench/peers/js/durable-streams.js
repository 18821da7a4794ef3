// The reference server as it comes: streams in memory, any path is one. PUT creates it, POST appends, and
// GET ?offset=<offset>&live=long-poll waits.

import { DurableStreamTestServer } from "@durable-streams/server";

const reference = new DurableStreamTestServer({ port: Number(process.env.PORT), longPollTimeout: 25_000 });
const url = await reference.start();
reference.server.keepAliveTimeout = 75_000; // node's own is 5 s, which would cut clients between two polls

// It has no health request. An empty stream answers one with 200.
await fetch(`${url}/health`, { method: "PUT", headers: { "Content-Type": "application/json" } });
