// The program on Bun (uWebSockets): messages that are the payload and nothing else.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch(request, server) {
    const room = new URL(request.url).searchParams.get("room") ?? "everyone";
    return server.upgrade(request, { data: { room } }) ? undefined : new Response("WebSocket only", { status: 400 });
  },
  websocket: {
    perMessageDeflate: true,
    idleTimeout: 0,
    open(socket) {
      socket.subscribe(socket.data.room);
    },
    message(socket, data) {
      server.publish(socket.data.room, data);
    },
  },
});
