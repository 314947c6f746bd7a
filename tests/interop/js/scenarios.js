// What stock clients do with the server of tests/interop/application.py. A scenario that returns has succeeded.
"use strict";
const { ask, assert, collect, connected, next, range } = require("./client");

let names = 0;
const newName = () => `${process.pid}-${++names}`;

module.exports = {
  async connect(stage) {
    const socket = await stage.connect();
    assert.match(socket.id, /^[A-Za-z0-9_-]{20}$/);
    assert.notStrictEqual(socket.id, socket.io.engine.id, "the session's id is a secret, the socket's is not");
    assert.strictEqual(await ask(socket, "echo", "héllo ✓"), "héllo ✓");
  },

  async rooms(stage) {
    const [a, b, c] = await Promise.all(range(3).map(() => stage.connect()));
    const room = newName();
    const [atA, atB, atC] = [a, b, c].map((socket) => collect(socket, "said"));
    await ask(a, "join", room);
    await ask(b, "join", room);
    await ask(a, "say", room, "one");
    await atB.until(1);
    await ask(b, "leave", room);
    await ask(a, "say", room, "two");
    for (const socket of [a, b, c]) await ask(socket, "echo", "fence");
    assert.deepStrictEqual([[...atA], [...atB], [...atC]], [[], ["one"], []]);
  },

  async namespaces(stage) {
    const root = await stage.connect();
    const admin = root.io.socket("/admin");
    const org = root.io.socket("/org/7");
    await Promise.all([connected(admin), connected(org)]);
    assert.strictEqual(await ask(root, "echo", "a"), "a");
    assert.strictEqual(await ask(admin, "echo", "b"), "/admin b");
    assert.strictEqual(await ask(org, "echo", "c"), "7 c");
    assert.strictEqual(new Set([root.id, admin.id, org.id]).size, 3);
    admin.disconnect();
    assert.strictEqual(await ask(org, "echo", "d"), "7 d");
  },

  async "unknown namespace"(stage) {
    const socket = stage.open("/nowhere");
    const [error] = await next(socket, "connect_error");
    assert.strictEqual(error.message, "Invalid namespace");
    assert.strictEqual(socket.connected, false);
  },

  async auth(stage) {
    const ada = await stage.connect("", { auth: { token: "ada" } });
    assert.strictEqual(await ask(ada, "who am i"), "ada");
    const bob = await stage.connect("", { auth: (give) => give({ token: "bob" }) });
    assert.strictEqual(await ask(bob, "who am i"), "bob");
    const guest = await stage.connect();
    assert.strictEqual(await ask(guest, "who am i"), "a guest");
  },

  async refusal(stage) {
    const socket = stage.open("", { auth: { token: "bad" } });
    const [error] = await next(socket, "connect_error");
    assert.strictEqual(error.message, "not authorized");
    assert.deepStrictEqual(error.data, { code: "E1", tries: [1, 2] });
    socket.auth = { token: "ada" };
    socket.connect();
    await connected(socket);
    assert.strictEqual(await ask(socket, "who am i"), "ada");
  },

  async "identity expires"(stage) {
    let asked = 0;
    const auth = (give) => give({ token: "ada", seconds: asked++ === 0 ? 1 : 600 });
    const socket = stage.open("", { auth, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    const told = next(socket, "auth:expired");
    const leaving = next(socket, "disconnect");
    await connected(socket);
    const back = next(socket, "connect");
    assert.deepStrictEqual(await told, [{ code: "token_expired" }]);
    assert.strictEqual((await leaving)[0], "transport close");
    await back;
    assert.strictEqual(asked, 2);
    assert.strictEqual(await ask(socket, "who am i"), "ada");
  },

  async "identity is renewed"(stage) {
    const socket = await stage.connect("", { auth: { token: "ada", seconds: 600 } });
    const { expires } = await ask(socket, "auth:renew", { token: "ada", seconds: 1200 });
    assert.ok(expires > Date.now() / 1000 + 900);
    const { error } = await ask(socket, "auth:renew", { token: "bob", seconds: 1200 });
    assert.strictEqual(error.code, "another_user");
    assert.strictEqual(await ask(socket, "who am i"), "ada");
  },

  async "identity has expired"(stage) {
    const socket = stage.open("", { auth: { token: "ada", seconds: -1 }, reconnection: true });
    const [error] = await next(socket, "connect_error");
    assert.deepStrictEqual(error.data, { code: "token_expired" });
    assert.strictEqual(socket.connected, false);
  },

  async binary(stage) {
    const socket = await stage.connect();
    const parcel = { label: "ü", blob: Buffer.from([0, 1, 255]), more: [Buffer.from("a"), Buffer.alloc(0)] };
    const coming = next(socket, "parcel");
    const answer = await ask(socket, "echo parcel", parcel, Buffer.from("extra"));
    assert.deepStrictEqual(await coming, [parcel, Buffer.from("extra")]);
    assert.deepStrictEqual(answer, { ...parcel, more: [...parcel.more, Buffer.from("extra")] });
    assert.deepStrictEqual(await ask(socket, "echo bytes", new Uint8Array([7, 8])), Buffer.from([7, 8]));
  },

  async "large payloads"(stage) {
    const socket = await stage.connect();
    const text = "é".repeat(250_000); // 500 kB as UTF-8
    assert.strictEqual(await ask(socket, "echo", text), text);
    const bytes = Buffer.from(range(500_000).map((n) => n % 251));
    assert.ok(bytes.equals(await ask(socket, "echo bytes", bytes)));
  },

  async order(stage) {
    const socket = await stage.connect();
    for (const n of range(1000)) socket.emit("number", n);
    assert.deepStrictEqual(await ask(socket, "numbers"), range(1000));
    const counted = collect(socket, "counted");
    await ask(socket, "count", 1000);
    assert.deepStrictEqual([...(await counted.until(1000))], range(1000));
  },

  async "server calls client"(stage) {
    const socket = await stage.connect();
    socket.on("question", (question, answer) => answer(`${question}!`));
    assert.strictEqual(await ask(socket, "ask me", "well"), "well!");
  },

  async "broadcast call"(stage) {
    const room = newName();
    const sockets = await Promise.all(range(4).map(() => stage.connect()));
    for (const [n, socket] of sockets.entries()) {
      socket.on("question", (question, answer) => answer(`${question} ${n}`));
      if (n) await ask(socket, "join", room);
    }
    const asked = await ask(sockets[0], "ask room", room, "who");
    assert.deepStrictEqual(asked, { answers: ["who 1", "who 2", "who 3"], missing: 0 });
  },

  async volatile(stage) {
    const socket = await stage.connect();
    const ticks = collect(socket, "tick");
    await ask(socket, "tick me", 10);
    assert.deepStrictEqual([...(await ticks.until(10))], range(10));
    await new Promise((done) => setImmediate(done)); // a volatile event is dropped while a POST is under way
    socket.volatile.emit("number", 1);
    const numbers = await ask(socket, "numbers");
    assert.ok(numbers.length <= 1 && numbers.every((n) => n === 1));
  },

  async "every question is answered"(stage) {
    const socket = await stage.connect();
    const unknown = await ask(socket, "no such event", 1);
    const wrong = await ask(socket, "echo", 5);
    assert.strictEqual(typeof unknown.error.code, "string");
    assert.strictEqual(typeof wrong.error.code, "string");
    assert.strictEqual(await ask(socket, "echo", "still here"), "still here");
  },

  async "client disconnects"(stage) {
    const witness = await stage.connect();
    const name = newName();
    const socket = await stage.connect("", { auth: { name } });
    const leaving = next(socket, "disconnect");
    socket.disconnect();
    assert.strictEqual((await leaving)[0], "io client disconnect");
    assert.deepStrictEqual(await reasonsOf(witness, name), ["client namespace disconnect"]);
  },

  async "server disconnects"(stage) {
    const witness = await stage.connect();
    for (const close of [false, true]) {
      const name = newName();
      const socket = await stage.connect("", { auth: { name }, reconnection: true });
      const leaving = next(socket, "disconnect");
      socket.emit("kick", close);
      assert.strictEqual((await leaving)[0], "io server disconnect");
      assert.strictEqual(socket.active, stage.version === "3.0" ? undefined : false, "it does not come back by itself");
      assert.deepStrictEqual(await reasonsOf(witness, name), ["server namespace disconnect"]);
    }
  },

  async "connection breaks"(stage) {
    const witness = await stage.connect();
    const name = newName();
    const socket = await stage.connect("", { auth: { name } });
    const leaving = next(socket, "disconnect");
    socket.io.engine.close();
    assert.match((await leaving)[0], /^(forced close|transport close)$/);
    assert.match((await reasonsOf(witness, name))[0], /^transport (close|error)$/);
  },

  async "200 connections"(stage) {
    const room = newName();
    const sockets = await Promise.all(range(200).map(() => stage.connect()));
    const lists = sockets.map((socket) => collect(socket, "said"));
    const answers = await Promise.all(sockets.map((socket, n) => ask(socket, "echo", String(n))));
    assert.deepStrictEqual(answers, range(200).map(String));
    await Promise.all(sockets.map((socket) => ask(socket, "join", room)));
    await ask(sockets[0], "say", room, "hello");
    await Promise.all(lists.slice(1).map((list) => list.until(1)));
    assert.strictEqual(new Set(sockets.map((socket) => socket.id)).size, 200);
  },

  // Both sides send all the time, with acknowledgements, from before the upgrade until after it.
  async "messages during the upgrade"(stage) {
    await stage.moveAway(5 + Math.random() * 10); // else a WebSocket is there before the first POST is
    const socket = stage.open();
    const { engine } = socket.io;
    const streamed = [];
    socket.on("streamed", (n, answer) => {
      streamed.push(n);
      answer(n);
    });
    const started = ask(socket, "stream"); // leaves with the first POST
    await connected(socket);
    const answers = [];
    const emittedOn = { polling: 0, websocket: 0 };
    let sent = 0;
    while (emittedOn.websocket < 60) {
      for (const _ of range(3)) {
        const n = sent++;
        emittedOn[engine.transport.name]++;
        socket.emit("number", n);
        answers.push(ask(socket, "echo", String(n)).then((answer) => assert.strictEqual(answer, String(n))));
      }
      await new Promise((done) => setImmediate(done));
      assert.ok(sent < 100_000, "no upgrade came");
    }
    await started;
    await Promise.all(answers);
    assert.ok(emittedOn.polling > 0, "it began before the upgrade");
    assert.deepStrictEqual(await ask(socket, "numbers"), range(sent));
    const count = await ask(socket, "stream end");
    assert.deepStrictEqual(streamed, range(count));
  },

  async retries(stage) {
    const socket = await stage.connect("", { retries: 3, ackTimeout: 400 });
    const key = newName();
    const answer = await new Promise((done, failed) => {
      socket.emit("slow once", key, (error, value) => (error ? failed(error) : done(value)));
    });
    assert.strictEqual(answer, 2, "the first try took too long, the second was answered");
    const texts = ["a", "b", "c"];
    const answers = texts.map(
      (text) => new Promise((done, failed) => socket.emit("echo", text, (error, value) => (error ? failed(error) : done(value)))),
    );
    assert.deepStrictEqual(await Promise.all(answers), texts);
  },

  // The test kills the server when it reads "connected", and starts it again when it reads "disconnected".
  async reconnection(stage, tell) {
    const socket = stage.open("", { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    await connected(socket);
    await stage.settled(socket);
    const first = socket.id;
    const leaving = next(socket, "disconnect");
    tell("connected");
    assert.match((await leaving)[0], /^transport (close|error)$/);
    const back = next(socket, "connect");
    socket.emit("number", 1); // kept by the client until it is connected again
    tell("disconnected");
    await back;
    assert.notStrictEqual(socket.id, first);
    assert.deepStrictEqual(await ask(socket, "numbers"), [1]);
  },

  // As the one before, but the server is stopped in an orderly way, and nothing is emitted meanwhile.
  async "orderly restart"(stage, tell) {
    const socket = stage.open("", { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    await connected(socket);
    await stage.settled(socket);
    const leaving = next(socket, "disconnect");
    tell("connected");
    assert.strictEqual((await leaving)[0], "transport close");
    const back = next(socket, "connect");
    tell("disconnected");
    await back;
    assert.strictEqual(await ask(socket, "echo", "again"), "again");
  },

  // More than one POST's worth of packets, in one go.
  async burst(stage) {
    const socket = await stage.connect();
    for (const n of range(5000)) socket.emit("number", n);
    assert.deepStrictEqual(await ask(socket, "numbers"), range(5000));
  },
};

// Why the server says that a client went; it may still be about to notice.
async function reasonsOf(witness, name) {
  for (;;) {
    const reasons = await ask(witness, "reasons", name);
    if (reasons.length) return reasons;
  }
}
