// Builds the page's parts from the chat's state. What people wrote is only ever set as text.

const GROUP_MS = 5 * 60 * 1000; // messages of one person closer than this stand under one name
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const TICKS = { pending: ["…", "sending"], sent: ["✓", "sent"], lost: ["?", "not confirmed"], failed: ["!", "not sent"] };

/** An element with attributes (`hue` sets the colour of a person), and text or elements in it. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "hue") made.style.setProperty("--hue", value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** The colour of a person, the same on every page: an angle from the digits of their id. */
export function hueOf(person) {
  return (parseInt(person.id.slice(0, 4), 16) || 0) % 360;
}

/** What tells this person from another of the same name. */
export function tagOf(person) {
  return `#${person.id.slice(0, 4)}`;
}

/** The names that more than one person in a room goes by. */
export function twinsOf(room) {
  const seen = new Map();
  const twins = new Set();
  const here = [...room.people.values()].map((presence) => presence.person);
  for (const { id, name } of [...here, ...room.messages.map((message) => message.author)]) {
    if (seen.has(name) && seen.get(name) !== id) twins.add(name);
    seen.set(name, id);
  }
  return twins;
}

export function avatar(person) {
  const [initial = "?"] = person.name;
  return element("span", { class: "avatar", hue: hueOf(person), "aria-hidden": "true" }, initial.toUpperCase());
}

/** One entry of the rooms' list. */
export function roomItem(name, room, isCurrent, onclick) {
  const unread = room?.unread ? element("span", { class: "badge" }, String(room.unread)) : null;
  if (unread) unread.append(element("span", { class: "unseen" }, " unread"));
  const attributes = { type: "button", class: room ? "in" : "", "aria-current": isCurrent && "true", onclick };
  return element("li", {}, element("button", attributes, element("span", { class: "name", dir: "auto" }, name), unread));
}

/** One entry of the people's list: you first, then by name. */
export function peopleItems(room, me) {
  const byName = (a, b) => (b.person.id === me.id) - (a.person.id === me.id) || a.person.name.localeCompare(b.person.name);
  return [...room.people.values()].sort(byName).map(({ person, tabs }) => {
    const tag = room.twins.has(person.name) ? element("span", { class: "tag" }, ` ${tagOf(person)}`) : null;
    const you = person.id === me.id ? element("small", {}, "you") : null;
    const count = tabs > 1 ? element("small", {}, `${tabs} tabs`) : null;
    return element("li", {}, avatar(person), element("span", { class: "name" }, element("bdi", {}, person.name), tag), you, count);
  });
}

/** Who is writing, in words. */
export function typingLine(typists) {
  const names = [...typists.values()].map(({ person }) => `\u2068${person.name}\u2069`); // isolated: names of any script
  if (names.length === 0) return "";
  if (names.length === 1) return `${names[0]} is writing…`;
  if (names.length === 2) return `${names[0]} and ${names[1]} are writing…`;
  return `${names.length} people are writing…`;
}

/** The list items of one message: a divider where a new day or a gap begins, and the message. */
export function messageItems(message, previous, room, me, retry) {
  const at = new Date(message.at);
  const isNewDay = !previous || new Date(previous.at).toDateString() !== at.toDateString();
  const items = [];
  if (message.afterGap) items.push(element("li", { class: "divider" }, "Some messages were missed here"));
  if (message.away) items.push(element("li", { class: "divider" }, awayLine(message.away)));
  if (isNewDay) items.push(element("li", { class: "divider" }, dayName(at)));
  const follows = !isNewDay && !message.afterGap && !message.away && previous.author.id === message.author.id;
  items.push(messageItem(message, !(follows && message.at - previous.at < GROUP_MS), room, me, retry));
  return items;
}

function awayLine(count) {
  return `You were away: ${count === 1 ? "1 message" : `${count} messages`} came meanwhile`;
}

function dayName(date) {
  return date.toDateString() === new Date().toDateString() ? "Today" : DAY.format(date);
}

function messageItem(message, isFirst, room, me, retry) {
  const isOwn = message.author.id === me.id;
  const classes = ["message", isOwn && "own", isFirst && "first", message.status].filter(Boolean).join(" ");
  return element(
    "li",
    { class: classes, "aria-live": isOwn && "off" }, // our own words need no reading out
    isFirst && !isOwn ? avatar(message.author) : null,
    element(
      "div",
      { class: "body" },
      byline(message.author, isOwn, isFirst, room),
      element("p", { class: "bubble", dir: "auto" }, element("span", { class: "text" }, message.text), meta(message, isOwn)),
      message.fault ? fault(message, retry) : null,
    ),
  );
}

function byline(author, isOwn, isFirst, room) {
  const tag = room.twins.has(author.name) ? element("span", { class: "tag" }, ` ${tagOf(author)}`) : null;
  const name = element("bdi", { class: "author", hue: hueOf(author) }, isOwn ? "You" : author.name);
  return element("p", { class: isOwn || !isFirst ? "byline unseen" : "byline" }, name, isOwn ? null : tag);
}

function meta(message, isOwn) {
  const at = new Date(message.at);
  const time = element("time", { dir: "ltr", datetime: at.toISOString(), title: at.toLocaleString() }, TIME.format(at));
  if (!isOwn) return element("span", { class: "meta" }, time);
  const [sign, meaning] = TICKS[message.status] ?? TICKS.sent;
  const tick = element("span", { class: "tick", role: "img", "aria-label": meaning, title: meaning }, sign);
  return element("span", { class: "meta" }, time, " ", tick);
}

function fault(message, retry) {
  const again = element("button", { type: "button", onclick: () => retry(message) }, "Try again");
  return element("p", { class: "fault", title: message.where ?? null }, message.fault, message.status === "failed" ? again : null);
}
