// A stock client that says what it hears: node listener.js URL [OPTIONS of socket.io-client, as JSON]
// It writes one JSON list a line:
//   ["connect", ID, RECOVERED]   ["transport", NAME]   ["disconnect", REASON]   [EVENT, ...ARGUMENTS]
//   ["answer", EVENT, ANSWER]
// with bytes as {"hex": "00ff"}, and reads such lists: an event to be emitted, with arguments, whose answer it tells.
// It answers every question with its id. The end of standard input is its end.
"use strict";
const readline = require("node:readline");
const { io } = require("socket.io-client");

const [url, options] = process.argv.slice(2);
const socket = io(url, { reconnectionDelay: 50, reconnectionDelayMax: 500, ...JSON.parse(options || "{}") });

const plain = (value) => {
  if (Buffer.isBuffer(value) || value instanceof Uint8Array) return { hex: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(plain);
  return value;
};
const say = (...words) => process.stdout.write(JSON.stringify(words.map(plain)) + "\n");

socket.on("connect", () => {
  const { engine } = socket.io;
  say("connect", socket.id, socket.recovered);
  say("transport", engine.transport.name);
  engine.on("upgrade", (transport) => say("transport", transport.name));
});
socket.on("disconnect", (reason) => say("disconnect", reason));
socket.onAny((event, ...args) => {
  const answer = args.at(-1);
  if (typeof answer === "function") {
    args.pop();
    answer(socket.id);
  }
  say(event, ...args);
});

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [event, ...args] = JSON.parse(line);
    socket.emit(event, ...args, (answer) => say("answer", event, answer));
  }
  process.exit(0);
})();
