// A stock client, and what every scenario needs: connect with it, ask, collect, compare.
"use strict";
const assert = require("node:assert");
const net = require("node:net");

const PATIENCE = 10_000; // milliseconds

const PACKAGES = { "4.8": "socket.io-client", "3.0": "socket.io-client-3" };

class Stage {
  // url: where the server is; version: "4.8" or "3.0"; transport: "polling", "websocket" or "upgrade"
  constructor(url, version, transport) {
    this.url = url;
    this.version = version;
    this.transport = transport;
    this.io = require(PACKAGES[version]).io;
    this.sockets = [];
    this.relays = [];
  }

  // Put the server as many milliseconds away, in each direction.
  async moveAway(delay) {
    const { hostname, port } = new URL(this.url);
    const later = (from, to) => {
      from.on("data", (data) => setTimeout(() => to.write(data), delay));
      from.on("end", () => setTimeout(() => to.end(), delay));
      from.on("error", () => to.destroy());
    };
    const relay = net.createServer({ noDelay: true }, (near) => {
      const far = net.connect({ host: hostname, port, noDelay: true });
      later(near, far);
      later(far, near);
    });
    this.relays.push(relay);
    await new Promise((done) => relay.listen(0, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${relay.address().port}`;
  }

  // A socket that has not connected yet. Each has a connection of its own.
  open(namespace = "", options = {}) {
    const transports = this.transport === "upgrade" ? ["polling", "websocket"] : [this.transport];
    const socket = this.io(this.url + namespace, { transports, forceNew: true, reconnection: false, ...options });
    this.sockets.push(socket);
    return socket;
  }

  // A socket that is connected, on the transport of this stage.
  async connect(namespace = "", options = {}) {
    const socket = this.open(namespace, options);
    await connected(socket);
    await this.settled(socket);
    return socket;
  }

  // Until the connection has arrived at its final transport.
  async settled(socket) {
    const engine = socket.io.engine;
    const last = this.transport === "polling" ? "polling" : "websocket";
    if (engine.transport.name !== last) await within(new Promise((done) => engine.once("upgrade", done)), "upgrade");
    assert.strictEqual(engine.transport.name, last);
  }

  close() {
    for (const socket of this.sockets) socket.disconnect();
    for (const relay of this.relays) relay.close();
    this.sockets = [];
  }
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function connected(socket) {
  return within(
    new Promise((done, failed) => {
      socket.once("connect", done);
      socket.once("connect_error", failed);
    }),
    "connect",
  );
}

// The next time that a socket, manager or engine emits this event: its arguments.
function next(emitter, event) {
  return within(new Promise((done) => emitter.once(event, (...args) => done(args))), event);
}

// Emit with an acknowledgement, as every version can: the first argument of the answer.
function ask(socket, ...args) {
  return within(new Promise((done) => socket.emit(...args, done)), `answer to ${args[0]}`);
}

// Collect what comes as this event; `list.until(n)` waits for n of them.
function collect(socket, event) {
  const list = [];
  list.until = (count) =>
    within(
      new Promise((done) => {
        const check = () => list.length >= count && done(list);
        socket.on(event, check);
        check();
      }),
      `${count} of ${event}`,
    );
  socket.on(event, (value) => list.push(value));
  return list;
}

function range(count) {
  return Array.from({ length: count }, (_, n) => n);
}

module.exports = { Stage, ask, assert, collect, connected, next, range, within };
