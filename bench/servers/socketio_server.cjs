// The program on Node's socket.io.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { perMessageDeflate: {} }); // compresses for clients that offer it

io.on("connection", (socket) => {
  const room = socket.handshake.query.room;
  if (room) socket.join(room);
  socket.on("pub", (text) => (room ? io.to(room) : io).emit("msg", text));
  socket.on("pub-bytes", (data) => io.emit("msg-bytes", data));
  socket.on("echo", (text, acknowledge) => acknowledge(text));
});

http.listen(Number(process.env.PORT), "127.0.0.1");
