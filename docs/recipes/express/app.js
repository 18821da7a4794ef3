// Express and pg. Environment: PORT, DATABASE_URL, SECRET_KEY, NOTIFIER_URL, NOTIFIER_JWT_SECRET.

import { readFileSync } from "node:fs";

import cookieSession from "cookie-session";
import express from "express";
import jwt from "jsonwebtoken";
import pg from "pg";

const { PORT, DATABASE_URL, SECRET_KEY, NOTIFIER_URL, NOTIFIER_JWT_SECRET } = process.env;
const TOKEN_LIFETIME_S = 3600;

const page = readFileSync(new URL("../page.html", import.meta.url), "utf8");
const pool = new pg.Pool({ connectionString: DATABASE_URL });
const app = express();
app.use(cookieSession({ secret: SECRET_KEY, sameSite: "lax" }));
app.use(express.urlencoded());

function tokenFor(userId) {
  const claims = { notifier: { subscribe: [`user/${userId}/**`, "all"] } };
  const [secret] = NOTIFIER_JWT_SECRET.split(" "); // the first of several signs; Notifier accepts all of them
  return jwt.sign(claims, secret, { algorithm: "HS256", subject: String(userId), expiresIn: TOKEN_LIFETIME_S });
}

/** Runs `work` in a transaction. */
async function atomic(work) {
  const db = await pool.connect();
  try {
    await db.query("begin");
    const result = await work(db);
    await db.query("commit");
    return result;
  } catch (error) {
    await db.query("rollback");
    throw error;
  } finally {
    db.release();
  }
}

app.use(async (request, response, next) => {
  const { login } = request.session;
  const { rows } = login ? await pool.query("select user_id from login where id = $1", [login]) : { rows: [] };
  request.user = rows[0]?.user_id;
  next();
});

function loggedIn(request, response, next) {
  if (request.user === undefined) response.sendStatus(401);
  else next();
}

app.get("/", (request, response) => {
  if (request.user === undefined)
    response.send('<form method="post" action="/login"><input name="user"><button>Log in</button></form>');
  else response.send(page.replace("{{ notifier_url }}", NOTIFIER_URL).replace("{{ user_id }}", request.user));
});

app.get("/live/token", loggedIn, (request, response) => {
  response.set("Cache-Control", "no-store").json({ token: tokenFor(request.user) });
});

app.post("/login", async (request, response) => {
  const user = Number(request.body.user); // here you check a password
  const { rows } = await pool.query("insert into login (user_id) values ($1) returning id", [user]);
  request.session.login = rows[0].id;
  response.redirect(303, "/");
});

app.post("/logout", async (request, response) => {
  const { user, session } = request;
  if (user !== undefined)
    await atomic(async (db) => {
      await db.query("delete from login where id = $1", [session.login]);
      await db.query("select notifier.revoke($1)", [user]);
    });
  request.session = null;
  response.redirect(303, "/");
});

app.post("/orders/:order/pay", loggedIn, async (request, response) => {
  await atomic(async (db) => {
    // What the order needs is written here; the message is seen when all of it is committed.
    const paid = JSON.stringify({ order: Number(request.params.order), status: "paid" });
    await db.query("select notifier.publish($1, $2::text)", [`user/${request.user}/orders`, paid]);
  });
  response.sendStatus(204);
});

app.listen(PORT, "127.0.0.1");
