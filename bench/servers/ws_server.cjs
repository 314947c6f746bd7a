// The program on ws: messages that are the payload and nothing else. A message is framed for each receiver.
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.env.PORT), perMessageDeflate: true });
const rooms = new Map();

server.on("connection", (socket, request) => {
  const name = new URL(request.url, "ws://localhost").searchParams.get("room") ?? "";
  const room = rooms.get(name) ?? new Set();
  rooms.set(name, room.add(socket));
  socket.on("close", () => room.delete(socket));
  socket.on("message", (data, binary) => {
    for (const member of room) member.send(data, { binary });
  });
});
