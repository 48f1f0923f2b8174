// Services in another language, behind an HTTP/2 endpoint. Prints its port; `KEY` is the only caller it trusts.
import * as http2 from "node:http2";
import * as restate from "@restatedev/restate-sdk";

const greeter = restate.service({
  name: "TsGreeter",
  handlers: {
    greet: async (ctx, name) => {
      const length = await ctx.run("measure", () => name.length);
      await ctx.sleep(20);
      return `Hello ${name}, ${length}`;
    },
    relay: async (ctx, name) => `via TypeScript: ${await ctx.serviceClient({ name: "Python" }).answer(name)}`,
    approved: async (ctx, name) => {
      const { id, promise } = ctx.awakeable();
      await ctx.run("publish", () => console.log(`awakeable ${id}`));
      return `${name}: ${await promise}`;
    },
    refuse: async () => {
      throw new restate.TerminalError("not for you", { errorCode: 403 });
    },
  },
});

const counter = restate.object({
  name: "TsCounter",
  handlers: {
    add: async (ctx, amount) => {
      const total = ((await ctx.get("total")) ?? 0) + amount;
      ctx.set("total", total);
      return total;
    },
    total: restate.handlers.object.shared(async (ctx) => (await ctx.get("total")) ?? 0),
  },
});

const signup = restate.workflow({
  name: "TsSignup",
  handlers: {
    run: async (ctx) => `clicked ${await ctx.promise("link")}`,
    click: async (ctx, secret) => {
      await ctx.promise("link").resolve(secret);
    },
  },
});

const handler = restate.createEndpointHandler({
  services: [greeter, counter, signup],
  identityKeys: process.env.KEY ? [process.env.KEY] : [],
});
const server = http2.createServer(handler);
const sessions = new Set();
server.on("session", (session) => sessions.add(session));
process.on("SIGUSR2", () => {
  sessions.forEach((session) => session.close());
  console.log("renewed");
});
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
