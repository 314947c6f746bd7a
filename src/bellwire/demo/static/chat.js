// The chat's side in the browser: one Socket.IO connection, the rooms of this tab, and the page's controls.

import { avatar, element, messageItems, peopleItems, roomItem, twinsOf, typingLine } from "./view.js";

const ANSWER_MS = 8000; // an event without an answer for this long counts as lost
const TYPING_EVERY_MS = 2000; // how often we say that we are writing
const TYPING_SHOWN_MS = 4500; // how long others are shown as writing after they last said so
const MAX_SHOWN = 300; // messages kept per room on this page
const HISTORY = 50; // messages the server keeps per room
const FIRST_ROOM = "lobby";

const ids = [
  "rooms", "opener", "room-name", "opener-fault", "rename", "my-avatar", "my-name", "show-rooms", "elsewhere",
  "room-title", "state", "leave", "show-people", "head-count", "notice", "notice-text", "notice-action", "log",
  "messages", "jump", "typing", "composer", "desk", "draft", "draft-left", "people", "people-count", "curtain",
  "introduction", "introduce", "name", "name-fault", "rooms-panel", "people-panel",
];
const page = Object.fromEntries(ids.map((id) => [id, document.getElementById(id)]));

// ---------------------------------------------------------------------------------------------- what we know

const rooms = new Map(); // the rooms of this tab, by name
let listed = []; // the names of all open rooms
let current = null; // the room that is shown
let me = { id: "", name: "" };
let lastTyping = 0;
let returned = null; // room → its messages that came since the connection was recovered, while we enter the rooms again
let atBottom = true; // whether the end of the messages is on the screen
const drawn = new WeakMap(); // message → its list item on the page

function newRoom(name) {
  // `messages` as the server tells them, plus `status`, `fault` and `where` on our own that are under way
  return { name, entered: false, messages: [], people: new Map(), typists: new Map(), twins: new Set(), unread: 0 };
}

// Each tab has its own name and rooms; a new tab starts with the name used last.
const memory = {
  get name() { return sessionStorage.getItem("bellwire.name") ?? localStorage.getItem("bellwire.name") ?? ""; },
  set name(name) { for (const storage of [sessionStorage, localStorage]) storage.setItem("bellwire.name", name); },
  get rooms() { return (sessionStorage.getItem("bellwire.rooms") ?? "").split("\n").filter(Boolean); },
  set rooms(names) { sessionStorage.setItem("bellwire.rooms", names.join("\n")); },
  /** What makes the tabs of this browser one person, and another of our name somebody else. */
  get key() {
    if (!localStorage.getItem("bellwire.key")) localStorage.setItem("bellwire.key", randomId());
    return localStorage.getItem("bellwire.key");
  },
};

function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---------------------------------------------------------------------------------------------- the connection

const socket = io("/chat", {
  autoConnect: false,
  auth: (send) => send({ name: memory.name, key: memory.key }),
  reconnectionDelay: 500,
  reconnectionDelayMax: 5000,
});

/** Send an event and wait for its answer; a refusal is an Error with the server's `code` and `path`. */
async function ask(event, payload) {
  const reply = await socket.timeout(ANSWER_MS).emitWithAck(event, payload);
  if (reply?.error) throw Object.assign(new Error(reply.error.message), reply.error);
  return reply;
}

socket.on("connect", async () => {
  showState("connected");
  socket.io.engine.on("upgrade", () => showState("connected"));
  const came = new Map();
  returned = socket.recovered ? came : null; // if so, the server now sends what we missed, ahead of its answers
  await Promise.all([...rooms.values()].map(enter));
  for (const messages of came.values()) messages[0].away = messages.length;
  if (came.size) paintMessages();
  if (returned === came) returned = null;
});

socket.on("disconnect", (reason) => {
  for (const room of rooms.values()) {
    room.entered = false;
    for (const id of room.typists.keys()) forgetTypist(room, id);
  }
  const isFinal = !socket.active;
  showState(isFinal ? "disconnected" : "reconnecting", isFinal ? "The server ended the connection." : reason);
});

socket.on("connect_error", (error) => {
  if (socket.active) return; // the network: it tries again by itself
  showState("refused", error.message);
  if (error.data?.code === "name") introduce(error.message);
});

socket.io.on("reconnect_attempt", (attempt) => showState("reconnecting", "", attempt));

socket.on("welcome", (welcome) => {
  me = welcome.you;
  listed = welcome.rooms;
  paintMe();
  paintRooms();
});

socket.on("room:listed", ({ room, open }) => {
  listed = listed.filter((name) => name !== room);
  if (open) listed.push(room);
  paintRooms();
});

socket.on("presence:changed", ({ room: name, person, tabs }) => {
  const room = rooms.get(name);
  if (!room) return;
  if (tabs > 0) room.people.set(person.id, { person, tabs });
  else room.people.delete(person.id);
  if (tabs === 0) forgetTypist(room, person.id);
  noteTwins(room);
  if (room === current) paintPeople();
});

socket.on("typing:seen", ({ room: name, person }) => {
  const room = rooms.get(name);
  if (!room || person.id === me.id) return;
  clearTimeout(room.typists.get(person.id)?.timer);
  room.typists.set(person.id, { person, timer: setTimeout(forgetTypist, TYPING_SHOWN_MS, room, person.id) });
  if (room === current) paintTyping();
});

socket.on("message:received", (message) => {
  const room = rooms.get(message.room);
  if (!room) return void socket.emit("room:leave", { room: message.room }); // we left it while we were away
  if (room.messages.some(({ id }) => id === message.id)) return;
  if (returned) returned.set(room, [...(returned.get(room) ?? []), message]);
  forgetTypist(room, message.author.id);
  add(room, message);
});

function forgetTypist(room, id) {
  clearTimeout(room.typists.get(id)?.timer);
  if (room.typists.delete(id) && room === current) paintTyping();
}

// ---------------------------------------------------------------------------------------------- rooms

/** Go to a room, joining it if this tab is not in it. */
function visit(name) {
  if (!rooms.has(name)) {
    rooms.set(name, newRoom(name));
    if (socket.connected) enter(rooms.get(name));
  }
  show(rooms.get(name));
}

/** Join a room on the server, at first or again after the connection was away, and take over its state. */
async function enter(room) {
  try {
    const state = await ask("room:join", { room: room.name });
    if (rooms.get(room.name) !== room) return void socket.emit("room:leave", { room: state.room }); // left meanwhile
    if (state.room !== room.name) return respell(room, state.room);
    room.entered = true;
    room.people = new Map(state.people.map((presence) => [presence.person.id, presence]));
    catchUp(room, state.messages);
    remember();
    if (room === current) show(room);
  } catch (error) {
    if (error.code) drop(room, error.message);
    else if (socket.connected && rooms.get(room.name) === room) enter(room);
  }
}

/** The server spells the name in another way: go on under its spelling. */
function respell(room, name) {
  rooms.delete(room.name);
  const known = rooms.get(name);
  if (!known) rooms.set(name, Object.assign(room, { name }));
  if (room === current) show(rooms.get(name));
  if (!known) enter(room);
}

function drop(room, fault = "") {
  rooms.delete(room.name);
  remember();
  if (room === current) rooms.size ? show([...rooms.values()].at(-1)) : visit(FIRST_ROOM);
  paintRooms();
  page["opener-fault"].textContent = fault;
  if (fault) openDrawer("rooms-panel", true);
}

function leave(room) {
  if (room.entered) socket.emit("room:leave", { room: room.name });
  drop(room);
}

/** Merge the server's last messages into what this page has shown already. */
function catchUp(room, messages) {
  const known = new Set(room.messages.map(({ id }) => id));
  const unconfirmed = new Map(room.messages.filter(({ status }) => status === "lost").map((own) => [own.ref, own]));
  const isGap = room.messages.length > 0 && messages.length >= HISTORY && !messages.some(({ id }) => known.has(id));
  let afterGap = isGap;
  for (const message of messages) {
    const own = message.author.id === me.id && unconfirmed.get(message.ref);
    if (own) Object.assign(own, message, { status: "sent", fault: null });
    else if (!known.has(message.id)) {
      room.messages.push({ ...message, afterGap });
      afterGap = false;
    }
  }
  for (const own of unconfirmed.values()) {
    if (own.status === "lost") Object.assign(own, { status: "failed", fault: "Not sent: the connection was lost." });
  }
  trim(room);
  room.twins = twinsOf(room);
}

function add(room, message) {
  const previous = room.messages.at(-1);
  room.messages.push(message);
  trim(room);
  if (room !== current || document.hidden) room.unread += 1;
  noteTwins(room);
  if (room === current) append(message, previous);
  paintRooms();
}

function trim(room) {
  room.messages.splice(0, Math.max(0, room.messages.length - MAX_SHOWN));
}

function noteTwins(room) {
  const twins = twinsOf(room);
  if ([...twins].join("\n") === [...room.twins].join("\n")) return;
  room.twins = twins;
  if (room === current) paintMessages();
}

// ---------------------------------------------------------------------------------------------- writing

async function send(room, message) {
  Object.assign(message, { status: "pending", fault: null, where: null });
  repaint(message);
  try {
    const receipt = await ask("message:send", { room: room.name, text: message.draft, ref: message.ref });
    Object.assign(message, receipt, { status: "sent" });
  } catch (error) {
    if (message.status !== "pending") return; // the room's history has told meanwhile
    if (error.code) Object.assign(message, { status: "failed", fault: error.message, where: error.path ?? null });
    else if (socket.connected && room.entered) Object.assign(message, { status: "failed", fault: "No answer from the server." });
    else Object.assign(message, { status: "lost" }); // after joining again the room's history tells
  }
  repaint(message);
}

page.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const draft = page.draft.value.trim();
  if (!draft || !current?.entered) return;
  const message = { id: null, ref: randomId(), author: me, text: draft, draft, at: Date.now(), status: "pending" };
  add(current, message);
  scrollDown();
  send(current, message);
  page.draft.value = "";
  lastTyping = 0;
  fitDraft();
});

page.draft.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  page.composer.requestSubmit();
});

page.draft.addEventListener("input", () => {
  fitDraft();
  if (!page.draft.value.trim() || !current?.entered || Date.now() - lastTyping < TYPING_EVERY_MS) return;
  lastTyping = Date.now();
  socket.volatile.emit("typing:start", { room: current.name });
});

function fitDraft() {
  const left = page.draft.maxLength - page.draft.value.length;
  page["draft-left"].textContent = left < 200 ? `${left} left` : "";
  page.draft.style.height = "auto";
  page.draft.style.height = `${page.draft.scrollHeight}px`;
}

// ---------------------------------------------------------------------------------------------- painting

const STATE_TEXTS = {
  idle: () => "",
  connecting: () => "Connecting…",
  connected: () => `Connected · ${{ websocket: "WebSocket", polling: "long-polling" }[socket.io.engine.transport.name]}`,
  reconnecting: (attempt) => (attempt > 1 ? `Reconnecting… (${attempt})` : "Reconnecting…"),
  disconnected: () => "Disconnected",
  refused: () => "Refused",
};

function showState(state, reason = "", attempt = 0) {
  document.body.dataset.state = state;
  page.state.textContent = STATE_TEXTS[state](attempt);
  paintDesk();
  if (state === "reconnecting") showNotice("The connection is away. You can write again as soon as it is back.");
  else if (state === "disconnected") showNotice(reason, "Connect again", connect);
  else if (state === "refused") showNotice(`The server refused you: ${reason}`, "Try again", () => introduce());
  else showNotice("");
}

function showNotice(text, action = "", onclick = null) {
  page.notice.hidden = !text;
  page["notice-text"].textContent = text;
  page["notice-action"].hidden = !action;
  page["notice-action"].textContent = action;
  page["notice-action"].onclick = onclick;
}

/** The desk is open while we are in the room that is shown; the cursor comes back to where it was. */
function paintDesk() {
  const isOpen = socket.connected && Boolean(current?.entered);
  if (page.desk.disabled === !isOpen) return;
  if (!isOpen) page.draft.dataset.focused = String(document.activeElement === page.draft);
  page.desk.disabled = !isOpen;
  const hadFocus = page.draft.dataset.focused ?? String(matchMedia("(hover: hover)").matches);
  if (isOpen && hadFocus === "true" && !page.introduction.open) page.draft.focus({ preventScroll: true });
}

function show(room) {
  current = room;
  if (roomInHash() !== room.name) history.replaceState(null, "", `#${encodeURIComponent(room.name)}`);
  page["room-title"].textContent = room.name;
  page.draft.placeholder = `Write to # ${room.name}`;
  if (!document.hidden) room.unread = 0;
  room.twins = twinsOf(room);
  paintMessages();
  scrollDown();
  paintPeople();
  paintTyping();
  paintRooms();
  paintDesk();
}

function paintRooms() {
  const names = [...new Set([...listed, ...rooms.keys()])];
  page.rooms.replaceChildren(...names.map((name) => roomItem(name, rooms.get(name), rooms.get(name) === current, () => {
    visit(name);
    closeDrawers();
  })));
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  page.elsewhere.hidden = unread === 0;
  page.leave.hidden = rooms.size === 1 && current?.name === FIRST_ROOM; // one has to be somewhere
  page.elsewhere.textContent = unread;
  document.title = `${unread ? `(${unread}) ` : ""}${current ? `# ${current.name} · ` : ""}Bellwire chat`;
}

function paintPeople() {
  page.people.replaceChildren(...peopleItems(current, me));
  page["people-count"].textContent = page["head-count"].textContent = current.people.size || "";
}

function paintTyping() {
  page.typing.textContent = typingLine(current.typists);
}

function paintMe() {
  page.rename.hidden = false;
  page["my-name"].textContent = me.name;
  page["my-avatar"].replaceWith(Object.assign(avatar(me), { id: "my-avatar" }));
  page["my-avatar"] = document.getElementById("my-avatar");
}

/** Draw the whole room anew. Screen readers are not to read all of it again. */
function paintMessages() {
  const wasAtBottom = isAtBottom();
  page.log.setAttribute("aria-live", "off");
  const items = current.messages.flatMap((message, index, all) => itemsOf(message, all[index - 1]));
  page.messages.replaceChildren(...(items.length ? items : [emptyItem()]));
  if (wasAtBottom) scrollDown();
  setTimeout(() => page.log.setAttribute("aria-live", "polite"), 100);
}

/** Draw one message anew where it stands, if it is on the page. */
function repaint(message) {
  const index = current.messages.indexOf(message);
  const item = drawn.get(message);
  const wasAtBottom = isAtBottom();
  if (index >= 0 && item?.isConnected) item.replaceWith(itemsOf(message, current.messages[index - 1]).at(-1));
  if (wasAtBottom) scrollDown();
}

function append(message, previous) {
  const wasAtBottom = isAtBottom();
  page.messages.querySelector(".empty")?.remove();
  page.messages.append(...itemsOf(message, previous));
  if (wasAtBottom) scrollDown();
  else page.jump.hidden = false;
}

function itemsOf(message, previous) {
  const items = messageItems(message, previous, current, me, (failed) => current.entered && send(current, failed));
  drawn.set(message, items.at(-1));
  return items;
}

function emptyItem() {
  const title = element("strong", {}, current.entered ? "Nothing was said here yet." : "One moment…");
  return element("li", { class: "empty" }, title, current.entered ? "Say hello, and send the page's address to somebody." : "");
}

function isAtBottom() {
  return page.log.scrollHeight - page.log.scrollTop - page.log.clientHeight < 48;
}

function scrollDown() {
  page.log.scrollTop = page.log.scrollHeight;
  page.jump.hidden = true;
}

// ---------------------------------------------------------------------------------------------- controls

function roomInHash() {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim().slice(0, page["room-name"].maxLength);
  } catch {
    return ""; // not the encoding of any name
  }
}

function remember() {
  memory.rooms = [...rooms.keys()];
}

function connect() {
  socket.disconnect();
  showState("connecting");
  socket.connect();
}

function introduce(fault = "") {
  page["name-fault"].textContent = fault;
  page.name.value = memory.name;
  if (!page.introduction.open) page.introduction.showModal();
  page.name.select();
}

function openDrawer(id, isOpen) {
  const opener = page[id === "rooms-panel" ? "show-rooms" : "show-people"];
  if (!isOpen && page[id].contains(document.activeElement)) opener.focus();
  page[id].classList.toggle("open", isOpen);
  opener.setAttribute("aria-expanded", String(isOpen));
  page.curtain.hidden = !document.querySelector(".panel.open");
  if (isOpen) page[id].querySelector("button")?.focus();
}

function closeDrawers() {
  for (const id of ["rooms-panel", "people-panel"]) openDrawer(id, false);
}

page.introduce.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!page.name.value.trim()) return void (page["name-fault"].textContent = "A name, please.");
  memory.name = page.name.value.trim();
  page.introduction.close();
  connect();
});

page.introduction.addEventListener("cancel", (event) => {
  if (!memory.name) event.preventDefault(); // without a name there is nothing behind the dialog
});

page.opener.addEventListener("submit", (event) => {
  event.preventDefault();
  page["opener-fault"].textContent = "";
  const name = page["room-name"].value.trim();
  if (!name) return;
  page["room-name"].value = "";
  visit(name);
  closeDrawers();
});

page.rename.addEventListener("click", () => introduce());
page.leave.addEventListener("click", () => leave(current));
page.jump.addEventListener("click", scrollDown);
page.curtain.addEventListener("click", closeDrawers);
page.log.addEventListener("scroll", () => {
  atBottom = isAtBottom();
  if (atBottom) page.jump.hidden = true;
});
page["show-rooms"].addEventListener("click", () => openDrawer("rooms-panel", true));
page["show-people"].addEventListener("click", () => openDrawer("people-panel", true));
window.addEventListener("keydown", (event) => { if (event.key === "Escape") closeDrawers(); });
window.addEventListener("hashchange", () => { if (roomInHash()) visit(roomInHash()); });
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !current) return;
  current.unread = 0;
  paintRooms();
});

// The window was resized, or a phone's keyboard came up: who was at the end stays there.
new ResizeObserver(() => { if (atBottom) scrollDown(); }).observe(page.log);

for (const name of memory.rooms) rooms.set(name, newRoom(name));
visit(roomInHash() || [...rooms.keys()][0] || FIRST_ROOM);
if (memory.name) connect();
else introduce();
