// The same events on Node's socket.io, with its defaults: node peer_socketio.cjs PORT, beside its node_modules.
const { createServer } = require("http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http);
io.on("connection", (socket) => {
  for (const name of ["echo", "anything"]) socket.on(name, (value, answer) => answer && answer(value));
  socket.on("flood", async (kilobytes) => {
    for (let sent = 0; sent < kilobytes; sent++) {
      socket.emit("load", "x".repeat(1000));
      if (sent % 100 === 0) await new Promise(setImmediate);
    }
  });
});
http.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
