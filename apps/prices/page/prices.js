// Prices: history by REST, then the stream appends. What comes over the wire is set as text, never as markup.

import { showState } from "../pill.js";
import { Stream } from "../stream.js";
import { draw, short } from "./chart.js";
import { PERIODS, add, forget, merged, tipOf } from "./live.js";

const ROOT = "/api/v1/prices";
const SHOWN = 99;            // items in the list; the stream takes 100, and the one that is looked at may be another
const SAID = { connecting: "Connecting", live: "LIVE", waiting: "Reconnecting", offline: "Offline" };

const $ = (id) => document.getElementById(id);
const stream = new Stream({ hear, say, refused: () => true });  // without a stream, this is polling
let items = new Map();       // id → {facts, row, way}
let chosen = { item: 4151, period: "24h" };
let shown = null;            // the facts of the item that is looked at
let history = null;          // {key, points, before}
let pointed = null;          // where the pointer is, in pixels
let updated = 0;             // when a price came last
let scrolled = false;        // to the item in the list, once
let followed = "";           // the items of the stream
let begun = false;           // there was a stream before this one
let shownState = "connecting";
const asked = new Set();     // what was asked for since the page was opened

async function ask(path) {
  const answer = await fetch(ROOT + path, { cache: "no-store" });
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.reason ?? `status ${answer.status}`), { status: answer.status });
  return value;
}

// --- the list

let searching = 0;
async function loadItems() {
  const mine = ++searching, search = $("search").value.trim();
  const found = await ask(`/current?limit=${SHOWN}&search=${encodeURIComponent(search)}`);
  if (mine !== searching) return;
  items = new Map(found.items.map((facts) => [facts.item_id, { facts, row: items.get(facts.item_id)?.row ?? makeRow(facts.item_id) }]));
  $("items").replaceChildren(...[...items.values()].map(({ row }) => row));
  for (const item of items.values()) drawRow(item);
  $("no-items").hidden = items.size > 0;
  if (!scrolled) items.get(chosen.item)?.row.scrollIntoView({ block: "nearest" });
  scrolled = true;
  if (!shown && !items.has(chosen.item) && items.size) chosen.item = items.keys().next().value;
  markSimulated();
  follow();
}

function makeRow(id) {
  const row = $("item").content.firstElementChild.cloneNode(true);
  row.dataset.item = id;
  row.firstElementChild.addEventListener("click", () => choose({ item: id }));
  return row;
}

function drawRow({ facts, row, way }) {
  const button = row.firstElementChild;
  button.querySelector(".name").textContent = facts.name ?? `Item ${facts.item_id}`;
  button.querySelector(".price").textContent = short(facts.high ?? facts.low ?? 0);
  button.setAttribute("aria-current", String(facts.item_id === chosen.item));
  const trend = button.querySelector(".trend");
  if (way) {
    trend.textContent = way === "up" ? "▲" : "▼";
    trend.dataset.way = way;
  }
}

function markSimulated() {
  $("simulated").hidden = !(shown?.simulated || [...items.values()].some(({ facts }) => facts.simulated));
}

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => loadItems().catch(complain), 200);
});

// --- the chart

for (const period of Object.keys(PERIODS)) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = period;
  button.addEventListener("click", () => choose({ period }));
  $("periods").append(button);
}

function choose(choice) {
  chosen = { ...chosen, ...choice };
  if (choice.item !== undefined) shown = items.get(choice.item)?.facts ?? null;
  location.replace(`#${chosen.item}/${chosen.period}`);
  for (const button of $("periods").children) button.setAttribute("aria-pressed", String(button.textContent === chosen.period));
  for (const item of items.values()) drawRow(item);
  follow();
  return loadHistory().catch(complain);
}

// The first time since the page was opened the answer is computed anew: then it is what the database says.
async function loadHistory(fresh = false) {
  const { item, period } = chosen, key = `${item}/${period}`;
  if (history?.key !== key) history = null;
  const skip = fresh || !asked.has(key) ? "&cache=skip" : "";
  const [found, current] = await Promise.all([ask(`/history/${item}?period=${period}&sample=true${skip}`), ask(`/current/${item}`)]);
  if (chosen.item !== item || chosen.period !== period) return;
  asked.add(key);
  const pointOf = ({ timestamp, high, low }) => ({ at: Date.parse(timestamp), high, low });
  history = { key, points: found.data.map(pointOf), before: found.before && pointOf(found.before) };
  if (!shown || shown.timestamp <= current.timestamp) shown = current;
  $("problem").textContent = "";
  markSimulated();
  drawAll();
}

function complain(error) {
  $("problem").textContent = error.status === 404 ? "There is no such item." : `Not loaded: ${error.message}`;
}

function drawAll() {
  const facts = shown?.item_id === chosen.item ? shown : null;
  $("item-name").textContent = facts?.name ?? `Item ${chosen.item}`;
  $("item-id").textContent = `No. ${chosen.item}`;
  $("high").textContent = written(facts?.high);
  $("low").textContent = written(facts?.low);
  const spread = facts && facts.high !== null && facts.low !== null ? facts.high - facts.low : null;
  $("spread").textContent = spread === null ? "–" : `${written(spread)} · ${((100 * spread) / (facts.high || 1)).toFixed(1)} %`;
  drawChart(facts);
}

function drawChart(facts) {
  if (!history) return $("chart").replaceChildren();
  const [length, step] = PERIODS[chosen.period], now = Date.now();
  const present = facts && { at: Date.parse(facts.timestamp), high: facts.high, low: facts.low };
  let points = merged(history.points, chosen.item, step, now);
  if (!points.length && present) points = [present];
  const from = length === Infinity ? Math.min(points[0]?.at ?? now, now - step) : now - length;
  const early = points.filter(({ at }) => at <= from).at(-1) ?? history.before;  // how things stood at the left edge
  points = [...(early ? [{ ...early, at: from }] : []), ...points.filter(({ at }) => at > from)];
  drawChange(points, present);
  const live = shownState === "live" ? tipOf(chosen.item) ?? present : null;
  const end = present && points.length && present.at >= points.at(-1).at ? [...points, present] : points;
  const near = pointed === null ? null : nearest(points, pointed, from, now);
  const scale = draw($("chart"), { points: end, tip: live, from, to: now, cross: near });
  $("chart").setAttribute("aria-label", `${$("item-name").textContent}, ${chosen.period}: ${points.length} points`);
  $("chart").dataset.points = points.length;
  drawTip(near, scale);
}

function drawChange(points, present) {
  const first = points.find(({ high }) => high !== null)?.high, last = present?.high ?? null;
  const share = first && last !== null ? (100 * (last - first)) / first : null;
  $("change-label").textContent = `Change, ${chosen.period}`;
  $("change").textContent = share === null ? "–" : `${share > 0 ? "+" : ""}${share.toFixed(1)} %`;
  $("change").className = share > 0 ? "up" : share < 0 ? "down" : "";
}

function nearest(points, x, from, to) {
  const { width } = $("chart").getBoundingClientRect();
  const at = from + (x / (width - 74)) * (to - from);
  return points.reduce((best, point) => (!best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best), null);
}

function drawTip(point, scale) {
  $("tip").hidden = !point || !scale;
  if ($("tip").hidden) return;
  const moment = new Date(point.at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  $("tip").textContent = `${moment}\nBuyers pay ${written(point.high)}\nSellers get ${written(point.low)}`;
  const { width } = $("plot").getBoundingClientRect(), x = scale.x(point.at);
  $("tip").style.left = `${x > width / 2 ? x - $("tip").offsetWidth - 12 : x + 12}px`;
}

$("plot").addEventListener("pointermove", (event) => {
  pointed = event.clientX - $("plot").getBoundingClientRect().left - 8;
  drawAll();
});
$("plot").addEventListener("pointerleave", () => { pointed = null; drawAll(); });
new ResizeObserver(() => drawAll()).observe($("plot"));

function written(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en");
}

// --- what comes

function take(update) {
  updated = Date.now();
  add(update.item_id, { at: Date.parse(update.timestamp), high: update.high, low: update.low });
  const item = items.get(update.item_id);
  if (item) {
    const before = item.facts.high ?? item.facts.low, after = update.high ?? update.low;
    if (after !== before) item.way = after > before ? "up" : "down";
    item.facts = { ...item.facts, ...update };
    item.row.firstElementChild.classList.remove("fresh");
    void item.row.offsetWidth;
    item.row.firstElementChild.classList.add("fresh");
    drawRow(item);
  }
  if (update.item_id === chosen.item) {
    shown = { ...(shown ?? {}), ...update };
    drawAll();
  }
}

// --- the stream

// Of what is listed and looked at.
function follow() {
  const wanted = [...new Set([chosen.item, ...items.keys()])].sort((one, other) => one - other);
  if (wanted.join() === followed) return;
  for (const item of followed.split(",").filter(Boolean).map(Number).filter((one) => !wanted.includes(one))) {
    forget(item);
    for (const period of Object.keys(PERIODS)) asked.delete(`${item}/${period}`);
  }
  followed = wanted.join();
  stream.follow(`${ROOT}/stream?items=${followed}`, { cursor: stream.cursor });
}

function hear(type, text) {
  if (type === "price-update") take(JSON.parse(text));
  else if (type === "gap") catchUp();
  else if (type === "connected") {
    if (!begun) loadHistory(true).catch(complain);  // nothing between it and the stream is missed; later the cursor sees to that
    begun = true;
  }
}

// Also where there is no stream at all, at every attempt.
function catchUp() {
  loadItems().catch(() => {});
  loadHistory(true).catch(() => {});
}

function say(state) {
  if (state === "connecting" && shownState === "live") return;  // other items: what is on the page is live all the same
  if (state === "connecting" && shownState === "offline") catchUp();
  shownState = state;
  showState(state, SAID[state]);
  drawAll();
}

$("reconnect").addEventListener("click", () => stream.open());

function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1_000));
  if (seconds < 90) return `${seconds} s`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

setInterval(() => {
  const next = shownState === "offline" && stream.due > Date.now() ? `, next attempt in ${span(stream.due - Date.now())}` : "";
  $("ago").textContent = (updated ? `Updated ${span(Date.now() - updated)} ago` : "No update yet") + next;
  drawAll();
}, 1_000);

// --- the beginning

const [item, period] = location.hash.slice(1).split("/");
if (/^\d{1,9}$/.test(item)) chosen.item = Number(item);
if (period in PERIODS) chosen.period = period;
await loadItems().catch(complain);
choose(chosen);
