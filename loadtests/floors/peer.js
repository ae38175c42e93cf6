// F4: hono and ioredis on Bun's own server, one EVALSHA of a minimal script a request.
// bun peer.js PORT SOCKET
import { Hono } from "hono";
import Redis from "ioredis";

const [port, socket] = process.argv.slice(2);
const redis = new Redis(socket);
const script = async (name) => ({ lua: await Bun.file(`${import.meta.dir}/${name}.lua`).text() });
redis.defineCommand("least_track", { numberOfKeys: 2, ...(await script("track")) });
redis.defineCommand("least_check", { numberOfKeys: 1, ...(await script("check")) });

const app = new Hono();
app.post("/v1/track", async (c) => {
  const text = await c.req.text();
  const body = JSON.parse(text);
  const [id, a, b] = await redis.least_track(`c:${body.customer_id}`, "log", body.value, text);
  return c.json({ allowed: id !== "", id, customer_id: body.customer_id, balance: a + b });
});
app.post("/v1/check", async (c) => {
  const body = await c.req.json();
  const [allowed, a, b] = await redis.least_check(`c:${body.customer_id}`, 1);
  return c.json({ allowed: allowed === 1, customer_id: body.customer_id, balance: a + b });
});
Bun.serve({ port: Number(port), hostname: "127.0.0.1", fetch: app.fetch });
