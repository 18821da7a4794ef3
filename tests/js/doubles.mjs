/** Doubles that cause faults: a server that answers when the test says so, a clock that the test moves, a page. */

import { createServer } from "node:http";
import { once } from "node:events";

/** A server on which each request is held until the test answers or cuts it. */
export class HeldServer {
  #arrived = [];
  #wanted = [];
  #server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const held = new HeldRequest(request, response, Buffer.concat(chunks));
    const wanted = this.#wanted.shift();
    if (wanted) wanted(held);
    else this.#arrived.push(held);
  });

  static async start(t) {
    const server = new HeldServer();
    server.#server.listen(0, "127.0.0.1");
    await once(server.#server, "listening");
    t.after(() => (server.#server.close(), server.#server.closeAllConnections()));
    server.url = `http://127.0.0.1:${server.#server.address().port}`;
    return server;
  }

  /** The next request, whenever it comes. */
  request() {
    const arrived = this.#arrived.shift();
    return arrived ? Promise.resolve(arrived) : new Promise((resolve) => this.#wanted.push(resolve));
  }

  /** How many requests have come that the test did not ask for. */
  get unexpected() {
    return this.#arrived.length;
  }
}

class HeldRequest {
  constructor(request, response, body) {
    this.method = request.method;
    this.path = request.url;
    this.asks = described(request);
    this.limit = Number(new URL(request.url, "http://x").searchParams.get("limit") ?? 100);
    this.headers = request.headers;
    this.body = body;
    this.response = response;
    /** Settles when the client has hung up. */
    this.gone = once(response, "close");
  }

  begin(status = 200, headers = {}) {
    const applied = this.headers.prefer ? { "Preference-Applied": this.headers.prefer } : {};
    this.response.writeHead(status, { "Content-Type": "application/json", ...applied, ...headers });
    this.response.flushHeaders();
  }

  answer(body, { status, headers } = {}) {
    this.begin(status, headers);
    this.response.end(typeof body === "string" ? body : JSON.stringify(body));
  }

  empty(cursor, headers = {}) {
    this.answer({ messages: [], cursor }, { headers });
  }

  refuse(status, headers = {}) {
    const problem = { status, code: `code_${status}`, detail: `Refused with ${status}.` };
    this.answer(problem, { status, headers: { "Content-Type": "application/problem+json", ...headers } });
  }

  cut() {
    this.response.destroy();
  }
}

/** What a poll asks for: the path and the query without limit and nonce, its cursor, and what it prefers. */
function described({ url, headers }) {
  const { pathname, searchParams } = new URL(url, "http://x");
  for (const name of ["limit", "nonce"]) searchParams.delete(name);
  const target = pathname + (searchParams.size ? `?${searchParams}` : "");
  const after = headers["last-event-id"] === undefined ? [] : ["after", headers["last-event-id"]];
  return [target, ...after, headers.prefer].filter((part) => part !== undefined).join(" ");
}

/** Time that moves when the test says so: timers, wall clock and steady clock. Random numbers are what it says, too. */
export class Clock {
  random = 0.5;
  #wall = Date.parse("2026-11-20T17:00:00Z");
  #steady = 1_000;
  #timers = new Set();
  #wanted = new Map();

  constructor(t) {
    this.#replace(t, "setTimeout", "clearTimeout");
    this.#replace(t, "setInterval", "clearInterval");
    t.mock.method(Date, "now", () => this.#wall);
    t.mock.method(performance, "now", () => this.#steady);
    t.mock.method(Math, "random", () => this.random);
  }

  /** Takes over the client's timers alone: Node's own fetch sets some too, and breaks without them. */
  #replace(t, set, clear) {
    const { [set]: realSet, [clear]: realClear } = globalThis;
    t.mock.method(globalThis, set, (run, ms, ...rest) => {
      if (!new Error().stack.includes("/static/client/")) return realSet(run, ms, ...rest);
      const timer = { run, due: this.#steady + ms, every: set === "setInterval" ? ms : 0 };
      this.#timers.add(timer);
      this.#wanted.get(ms)?.();
      return timer;
    });
    t.mock.method(globalThis, clear, (timer) => this.#timers.delete(timer) || realClear(timer));
  }

  /** Whether a timer is set to go off in just so many milliseconds. */
  isSet(ms) {
    return [...this.#timers].some((timer) => timer.due === this.#steady + ms);
  }

  /** Settles when a timer of so many milliseconds is set. */
  set(ms) {
    return new Promise((resolve) => this.#wanted.set(ms, resolve));
  }

  advance(ms) {
    const end = this.#steady + ms;
    for (;;) {
      const [timer] = [...this.#timers].filter(({ due }) => due <= end).sort((a, b) => a.due - b.due);
      if (!timer) break;
      this.#move(timer.due - this.#steady);
      if (timer.every) timer.due += timer.every;
      else this.#timers.delete(timer);
      timer.run();
    }
    this.#move(end - this.#steady);
  }

  #move(ms) {
    this.#steady += ms;
    this.#wall += ms;
  }

  /** The machine sleeps: the wall clock goes on, timers and the steady clock stand still. */
  sleep(ms) {
    this.#wall += ms;
  }
}

/** The events of a browser page, and how many listeners hang on them. */
export class Page {
  #window = new EventTarget();
  #document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  #signals = [];

  constructor(t) {
    for (const target of [this.#window, this.#document]) this.#count(target);
    globalThis.document = this.#document;
    globalThis.addEventListener = this.#window.addEventListener.bind(this.#window);
    t.after(() => (delete globalThis.document, delete globalThis.addEventListener));
  }

  #count(target) {
    const add = target.addEventListener;
    target.addEventListener = (type, listener, options) => {
      this.#signals.push(options.signal);
      add.call(target, type, listener, options);
    };
  }

  get listeners() {
    return this.#signals.filter(({ aborted }) => !aborted).length;
  }

  tell(type) {
    this.#window.dispatchEvent(new Event(type));
  }

  show(visibilityState) {
    this.#document.visibilityState = visibilityState;
    this.#document.dispatchEvent(new Event("visibilitychange"));
  }
}

/** The states that a subscription reports, to be awaited. */
export class States {
  seen = [];
  #wanted = new Map();

  constructor() {
    this.onState = (state, retry) => {
      this.seen.push(state);
      this.#wanted.get(state)?.(retry);
      this.#wanted.delete(state);
    };
  }

  /** Settles when `state` is told from now on, with what is told beside it. */
  next(state) {
    return new Promise((resolve) => this.#wanted.set(state, resolve));
  }
}
