// The console: wires the parts of the page together.
//
// Owns what is being watched and the token (in memory only, never stored, never in an address). Talks to this server alone.

import { drawRing } from "./charts.js";
import { Commands, copyText } from "./commands.js";
import { Machine } from "./machine.js";
import { Minute, SLOT_MS } from "./minute.js";
import { NodeFigures } from "./node.js";
import { PublishForm } from "./publish.js";
import { Rows } from "./rows.js";
import { Subscription } from "./subscription.js";
import { amount, appendedAt, bytes, clockTime, pretty } from "./text.js";

const LAST_EVENTS = 120;
const KEPT_CHARACTERS = 65_536;
const MACHINE_CHANNEL = "host";

const at = (id) => document.getElementById(id);
const base = new URL(".", document.baseURI).href;
const encoder = new TextEncoder();

const watched = { channel: MACHINE_CHANNEL, topic: "", start: "last", token: "" };
const here = { total: 0, cursor: "", type: "", minute: new Minute() };
let subscription = null;
let machineTouched = false;

const rows = new Rows({ list: at("rows"), empty: at("empty"), held: at("held") }, { choose: inspect, resume: () => setPaused(false) });
const machine = new Machine(at("machine"));
const commands = new Commands(at("commands"));
const figures = new NodeFigures(tokenHeaders, { channels: offerChannels, applications: linkApplications });
const publish = new PublishForm({ watch: watchChannel, watched: () => watched.channel, headers: tokenHeaders });

function tokenHeaders() {
  return watched.token ? { Authorization: `Bearer ${watched.token}` } : {};
}

// Watching

function streamUrl() {
  const query = new URLSearchParams();
  if (watched.topic) query.set("topic", watched.topic);
  if (watched.start === "last") query.set("last", LAST_EVENTS);
  if (watched.start === "earliest") query.set("last_event_id", "earliest");
  return `channels/${encodeURIComponent(watched.channel)}/events?${query}`;
}

function watch() {
  Object.assign(watched, { channel: at("channel").value, topic: at("topic").value, start: at("start").value, token: at("token").value });
  subscription?.stop();
  rows.clear();
  Object.assign(here, { cursor: "", type: "" });
  at("machine").hidden = watched.channel !== MACHINE_CHANNEL;
  machine.reset();
  rememberInAddress();
  figures.askAgain();
  subscription = new Subscription(streamUrl(), watched.token, { event: takeEvent, cursor: moveCursor, state: showState });
  subscription.start();
}

function watchChannel(channel) {
  at("channel").value = channel;
  at("topic").value = "";
  at("publish-watch").hidden = true;
  watch();
}

function rememberInAddress() {
  const query = new URLSearchParams({ channel: watched.channel });
  if (watched.topic) query.set("topic", watched.topic);
  history.replaceState(null, "", `?${query}`);
}

function moveCursor(id) {
  here.cursor = id;
}

// Events

function takeEvent(event, control) {
  if (control?.kind === "heartbeat") return;
  const appended = appendedAt(event.id);
  const shown = event.data.length > KEPT_CHARACTERS ? { ...event, data: event.data.slice(0, KEPT_CHARACTERS), cut: event.data.length } : event;
  rows.add({ event: shown, appended, arrived: Date.now(), kind: control?.kind ?? "event", note: control ? controlNote(event, control) : "" });
  if (control) return;
  here.total += 1;
  here.minute.add(appended);
  here.type = event.type;
  if (watched.channel === MACHINE_CHANNEL) {
    machine.take(event.data);
    machineTouched = true;
  }
}

function controlNote(event, { kind, body }) {
  if (kind === "hello") return `connected to ${body.channel} as ${body.client_id}${body.complete === false ? ", with a gap" : ""}`;
  if (kind === "gap") return `events ${body.from ? `after ${body.from}` : "before this"}${body.to ? `, up to ${body.to},` : ""} may be missing: ${body.reason}`;
  return `the server ended the stream: ${body.reason}${body.reconnect ? "; coming back" : ""}`;
}

function inspect({ event, appended, arrived }) {
  const size = event.cut ? `the first ${KEPT_CHARACTERS} of ${event.cut} characters` : bytes(encoder.encode(event.data).length);
  const facts = [event.id && `id ${event.id}`, appended && `appended ${clockTime(appended)}`, `arrived ${clockTime(arrived)}`, size];
  at("inspected-type").textContent = event.type;
  at("inspected-facts").textContent = facts.filter(Boolean).join(" · ");
  at("inspected-data").textContent = pretty(event.data);
  at("inspector").hidden = false;
}

// State

function showState({ name, seconds, reason }) {
  const why = reason ? `: ${reason}` : "";
  const said = {
    connecting: "Connecting",
    live: `Live on ${watched.channel}`,
    waiting: `Back in ${Math.ceil(seconds)} s${why}`,
    ended: `Ended${why}`,
  };
  at("state").dataset.state = name;
  at("state-text").textContent = said[name];
  at("reconnect").hidden = name !== "waiting" && name !== "ended";
  document.title = name === "live" ? `${watched.channel} · Ringcast` : "Ringcast";
}

function setPaused(paused) {
  rows.setPaused(paused);
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Go on" : "Pause";
}

/** Each has a page of its own. */
function linkApplications(names) {
  const nav = at("applications");
  if (nav.childElementCount === names.length) return;
  nav.replaceChildren(...names.map((name) => Object.assign(document.createElement("a"), { href: `apps/${name}/`, textContent: name })));
  nav.hidden = !names.length;
}

function offerChannels(names) {
  const known = new Set([...at("channels").options].map((option) => option.value));
  for (const name of names) if (!known.has(name)) at("channels").append(new Option("", name));
}

// Drawing, twice a second: nothing here runs for each event

function draw() {
  at("here-rate").textContent = amount(here.minute.perSecond());
  at("here-total").textContent = amount(here.total);
  drawPageRing();
  if (at("cursor").textContent !== (here.cursor || "–")) at("cursor").textContent = here.cursor || "–";
  commands.show({ base, channel: watched.channel, topic: watched.topic, type: here.type, cursor: here.cursor, token: watched.token });
  at("counts").textContent = `${amount(at("rows").childElementCount)} shown`;
  if (machineTouched) machine.draw();
  machineTouched = false;
}

function drawPageRing() {
  const { counts, head } = here.minute.view();
  drawRing(at("ring"), counts, head);
}

function redraw() {
  figures.draw();
  machine.draw();
  drawPageRing();
}

// Start

function listen() {
  at("watch-form").addEventListener("submit", (event) => {
    event.preventDefault();
    watch();
  });
  at("reconnect").addEventListener("click", () => subscription.start());
  at("pause").addEventListener("click", () => setPaused(!rows.paused));
  at("clear").addEventListener("click", () => rows.clear());
  at("filter").addEventListener("input", (event) => rows.setFilter(event.target.value));
  at("inspected-close").addEventListener("click", closeInspector);
  at("inspected-copy").addEventListener("click", (event) => copyText(at("inspected-data").textContent, event.target, at("inspected-data")));
  addEventListener("keydown", (event) => event.key === "Escape" && closeInspector());
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function closeInspector() {
  at("inspector").hidden = true;
  rows.mark(null);
}

const asked = new URLSearchParams(location.search);
at("channel").value = asked.get("channel") || MACHINE_CHANNEL;
at("topic").value = asked.get("topic") || "";
listen();
figures.start();
setInterval(draw, SLOT_MS);
watch();
