// An application of yours that sends its users into meetings, and greets them there: npm install standardwebhooks
import { createHmac, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const { MEET = "http://127.0.0.1:8787", KEY_ID = "app", KEY_SECRET, HOOK_SECRET, PORT = "3000" } = process.env;
const base64 = (data) => Buffer.from(JSON.stringify(data)).toString("base64url");

/** An access token for a room (access-tokens.md). */
function token(sub, name, room, grants) {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const signed = `${base64({ alg: "HS256", typ: "JWT", kid: KEY_ID })}.${base64({ sub, name, room, exp, grants })}`;
  return `${signed}.${createHmac("sha256", KEY_SECRET).update(signed).digest("base64url")}`;
}

/** Reacts to an event (events.md). An event may come again, so the greeting has its id as key. */
async function react({ id, type, room, data }) {
  console.log(type, room, data.member?.name ?? "");
  if (type !== "member.joined") return;
  const answer = await fetch(`${MEET}/api/rooms/${encodeURIComponent(room)}/chat`, {
    method: "POST",
    headers: { authorization: `Bearer ${token("greeter", "Greeter", room, { agent: true })}`, "x-idempotency-key": id },
    body: JSON.stringify({ message: `Welcome, ${data.member.name}!` }),
  });
  // The guest may have left again; anything else is tried again with the event.
  if (!answer.ok && answer.status !== 404) throw new Error(`${answer.status}: ${await answer.text()}`);
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (request.method === "POST" && url.pathname === "/hook") {
    let body = "";
    for await (const chunk of request) body += chunk;
    try {
      await react(new Webhook(HOOK_SECRET).verify(body, request.headers));
      return response.writeHead(204).end();
    } catch (error) {
      return response.writeHead(error.name === "WebhookVerificationError" ? 401 : 500).end(`${error.message}\n`);
    }
  }
  // Your application knows its user; here the address says who it is.
  const name = url.searchParams.get("name") ?? "Guest";
  const link = `${MEET}/standup?token=${token(`user-${randomUUID()}`, name, "standup", { create: true })}`;
  response.writeHead(302, { location: link, "cache-control": "no-store" }).end();
}).listen(Number(PORT), "127.0.0.1", function () {
  console.log(`http://127.0.0.1:${this.address().port}/?name=Ada`);
});
