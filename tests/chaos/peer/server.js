// Socket.IO's own server, as tests/chaos/application.py is Bellwire's: node server.js PORT RECOVERY
// It writes its address once it listens. With RECOVERY "true" it has connection state recovery, as its manual sets it up.
"use strict";
const { Server } = require("socket.io");

const [port, recovery] = process.argv.slice(2);
const io = new Server(recovery === "true" ? { connectionStateRecovery: {} } : {});

io.on("connection", (socket) => {
  socket.join("notes");
  socket.on("note", (writer, number, answer) => {
    io.to("notes").emit("noted", writer, number);
    if (typeof answer === "function") answer(number);
  });
});

io.listen(Number(port));
io.httpServer.once("listening", () => process.stdout.write(`http://127.0.0.1:${port}\n`));
io.httpServer.listening && process.stdout.write(`http://127.0.0.1:${port}\n`);
