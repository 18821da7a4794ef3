// NestJS on Express, its default. What TypeScript makes of decorators is written out: they are functions.

import "reflect-metadata";
import { Body, Controller, Get, Module, Param, Post, Query, Res } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";

import { poll, publish } from "./topics.js";

class TopicsController {
  poll(topic, after, response) {
    poll(topic, Number(after) || 0, response, (found) => response.json(found));
  }

  publish(topic, data) {
    return publish(topic, data); // 201 is what a POST is answered with
  }

  health() {
    return { status: "ok" };
  }
}

class AppModule {}

function decorate(name, route, ...parameters) {
  const { prototype } = TopicsController;
  parameters.forEach((parameter, index) => parameter(prototype, name, index));
  route(prototype, name, Object.getOwnPropertyDescriptor(prototype, name));
}

decorate("poll", Get("poll/:topic"), Param("topic"), Query("after"), Res());
decorate("publish", Post("publish/:topic"), Param("topic"), Body());
decorate("health", Get("health"));
Controller()(TopicsController);
Module({ controllers: [TopicsController] })(AppModule);

const app = await NestFactory.create(AppModule, { logger: ["error"], bodyParser: false });
app.useBodyParser("json", { strict: false }); // any JSON, not only objects
app.getHttpServer().keepAliveTimeout = 75_000;
await app.listen(process.env.PORT, "127.0.0.1");
