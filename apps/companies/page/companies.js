// The widgets of one company, live: what the stream says is drawn as it comes, beginning with what is kept of the past.

import { showState } from "../pill.js";
import { Stream } from "../stream.js";

const KEPT_TOKEN = "ringcast-companies-token", PAST = 400, SHOWN = 60, JOURNEYS = 14, LOOK_SECONDS = 5;
const $ = (id) => document.getElementById(id);

let token = sessionStorage.getItem(KEPT_TOKEN) ?? "";
const stream = new Stream({ hear, say });
let company = "", metrics = new Map(), journeys = [], sroi = [], since = {}, received = 0;
let pace = [];  // events in each of the last seconds, this one last

async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  const facts = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(facts.reason), { status: answer.status });
  return facts;
}

// --- which company

function claimed() {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return String(JSON.parse(atob(part)).company ?? "");
  } catch {
    return "";
  }
}

async function enter() {
  let stats;
  try {
    stats = await ask("/stream/stats");
  } catch (error) {
    if (error.status === 401 || error.status === 403) return showDoor(token ? error.message : "");
    say("offline", "The server does not answer");
    $("reconnect").hidden = true;  // there is no stream yet
    setTimeout(enter, LOOK_SECONDS * 1_000);
    return;
  }
  $("door").hidden = true;
  $("choose").hidden = false;
  $("leave").hidden = !token;
  know(stats);
  const wanted = decodeURIComponent(location.hash.slice(1)) || claimed() || $("known").options[0]?.value || "";
  if (wanted) show(wanted);
}

function showDoor(problem) {
  stream.stop();
  token = "";
  sessionStorage.removeItem(KEPT_TOKEN);
  $("board").hidden = $("choose").hidden = $("simulated").hidden = true;
  $("door").hidden = false;
  $("token-problem").textContent = problem;
}

function know({ connections, replayCache }) {
  const names = Object.keys({ ...replayCache.eventsByCompany, ...connections.connectionsByCompany }).sort();
  if (names.join() !== [...$("known").options].map(({ value }) => value).join()) {
    $("known").replaceChildren(...names.map((name) => Object.assign(document.createElement("option"), { value: name })));
  }
  $("streams").textContent = connections.connectionsByCompany[company] ?? 0;
  $("kept").textContent = (replayCache.eventsByCompany[company] ?? 0).toLocaleString("en");
}

function show(name) {
  company = name;
  metrics = new Map();
  journeys = [];
  sroi = [];
  since = {};
  received = 0;
  pace = new Array(SHOWN).fill(0);
  $("company").value = name;
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  $("metrics").replaceChildren();
  for (const id of ["vis-parts", "sroi-course", "pace"]) $(id).replaceChildren();
  for (const id of ["sroi-value", "vis-value", "invested", "returned", "streams", "kept"]) $(id).textContent = "–";
  $("vis-arc").setAttribute("stroke-dasharray", "0 100");
  for (const id of ["invested-bar", "returned-bar"]) $(id).setAttribute("width", 0);
  $("received").textContent = 0;
  drawJourneys();
  $("board").hidden = false;
  $("notice").hidden = $("simulated").hidden = true;
  stream.follow(`/stream/updates?companyId=${encodeURIComponent(name)}&last=${PAST}`, { token });
  look();
}

async function look() {
  try {
    know(await ask("/stream/stats"));
  } catch { /* the stream's state says enough */ }
}

// --- what comes

const heard = {
  metric_updated(facts, moment) {
    const name = String(facts.metricName ?? "metric");
    const metric = metrics.get(name) ?? addMetric(name);
    metric.values = [...metric.values, Number(facts.value)].slice(-SHOWN);
    metric.since = moment;
    drawMetric(metric);
  },
  sroi_updated(facts, moment) {
    since.sroi = moment;
    $("sroi-value").textContent = Number(facts.value).toFixed(2);
    const most = Math.max(facts.invested, facts.returned);
    for (const name of ["invested", "returned"]) {
      if (!Number.isFinite(facts[name])) continue;
      $(name).textContent = facts[name].toLocaleString("en");
      $(`${name}-bar`).setAttribute("width", (100 * facts[name]) / most);
    }
    sroi = [...sroi, Number(facts.value)].slice(-SHOWN);
    sparkline($("sroi-course"), sroi);
    flash($("sroi"));
  },
  vis_updated(facts, moment) {
    since.vis = moment;
    $("vis-value").textContent = Number(facts.value).toFixed(1);
    $("vis-arc").setAttribute("stroke-dasharray", `${Math.min(100, Math.max(0, facts.value))} 100`);
    const parts = Object.entries(facts.dimensions ?? {}).flatMap(([name, value]) => [made("dt", words(name)), made("dd", value)]);
    $("vis-parts").replaceChildren(...parts);
    flash($("vis"));
  },
  journey_flag_updated({ userId, flag }, moment) {
    journeys = [{ userId: String(userId), flag: String(flag), since: moment }, ...journeys.filter((one) => one.userId !== String(userId))];
    drawJourneys();
  },
};

function hear(type, text) {
  if (type === "hello") {
    $("notice").hidden = true;
    look();
  } else if (type === "gap") {
    tell("Some events were missed: they came faster than this page could read, or are no longer kept.");
  } else if (type in heard) {
    const facts = JSON.parse(text), moment = Date.parse(facts.timestamp) || Date.now();
    received += 1;
    if (Date.now() - moment < 2_000) pace[SHOWN - 1] += 1;
    since.any = moment;
    $("received").textContent = received.toLocaleString("en");
    if (facts.simulated) $("simulated").hidden = false;
    heard[type](facts, moment);
  }
}

function say(state, text) {
  showState(state, state === "ended" ? "Ended" : text);
  if (state !== "ended") return;
  $("reconnect").hidden = false;
  tell(text);
}

function tell(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
}

// --- drawing

function made(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}

function words(name) {
  const text = String(name).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function flash(card) {
  card.classList.remove("fresh");
  void card.offsetWidth;
  card.classList.add("fresh");
}

function addMetric(name) {
  const card = $("metric").content.firstElementChild.cloneNode(true);
  card.dataset.name = name;
  card.querySelector("h3").textContent = words(name);
  const metric = { values: [], since: 0, card };
  metrics.set(name, metric);
  const after = [...$("metrics").children].find((other) => other.dataset.name > name);
  $("metrics").insertBefore(card, after ?? null);
  return metric;
}

function drawMetric({ values, card }) {
  const [before, now] = [values.at(-2), values.at(-1)];
  card.querySelector(".now").textContent = now.toLocaleString("en", { maximumFractionDigits: 3 });
  const change = before === undefined ? 0 : now - before;
  const mark = card.querySelector(".change");
  mark.textContent = change ? `${change > 0 ? "▲" : "▼"} ${Math.abs(change).toLocaleString("en", { maximumFractionDigits: 3 })}` : "";
  mark.dataset.way = Math.sign(change);
  sparkline(card.querySelector(".spark"), values);
  flash(card);
}

function sparkline(svg, values, low = Math.min(...values)) {
  const spread = Math.max(...values) - low || 1, step = 240 / (SHOWN - 1), start = SHOWN - values.length;
  const points = values.map((value, index) => `${((start + index) * step).toFixed(1)},${(40 - (36 * (value - low)) / spread).toFixed(1)}`);
  const first = points[0].split(",")[0];
  svg.replaceChildren(shape("polygon", "area", `${first},44 ${points.join(" ")} 240,44`), shape("polyline", "line", points.join(" ")));
  svg.setAttribute("aria-label", `The last ${values.length} values, from ${low} to ${low + spread}`);
}

function shape(name, kind, points) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", name);
  drawn.setAttribute("class", kind);
  drawn.setAttribute("points", points);
  return drawn;
}

function drawJourneys() {
  $("no-journeys").hidden = journeys.length > 0;
  const counts = Map.groupBy(journeys, ({ flag }) => flag);
  const shares = [...counts].sort((one, other) => other[1].length - one[1].length).slice(0, 8).map(([flag, users]) => {
    const share = $("share").content.firstElementChild.cloneNode(true);
    share.querySelector(".name").textContent = words(flag);
    share.querySelector("rect").setAttribute("width", (100 * users.length) / journeys.length);
    share.querySelector("b").textContent = users.length;
    return share;
  });
  $("flags").replaceChildren(...shares);
  $("journeys").replaceChildren(...journeys.slice(0, JOURNEYS).map(({ userId, flag, since: moment }) => {
    const row = $("journey").content.firstElementChild.cloneNode(true);
    row.querySelector(".who").textContent = userId;
    row.querySelector(".flag").textContent = words(flag);
    row.querySelector(".ago").dataset.moment = moment;
    row.querySelector(".ago").textContent = ago(moment);
    return row;
  }));
}

function ago(moment) {
  if (!moment) return "";
  const seconds = Math.round((Date.now() - moment) / 1_000);
  if (seconds < 2) return "just now";
  if (seconds < 90) return `${seconds} s ago`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3_600)} h ago`;
}

setInterval(() => {
  for (const place of document.querySelectorAll("[data-since]")) place.textContent = ago(since[place.dataset.since]);
  if (company) sparkline($("pace"), pace, 0);
  pace = [...pace.slice(1), 0];
  for (const { card, since: moment } of metrics.values()) card.querySelector(".ago").textContent = ago(moment);
  for (const place of $("journeys").querySelectorAll(".ago")) place.textContent = ago(Number(place.dataset.moment));
}, 1_000);
setInterval(() => { if (company && !$("board").hidden) look(); }, LOOK_SECONDS * 1_000);

// --- the beginning

$("choose").addEventListener("submit", (event) => {
  event.preventDefault();
  show($("company").value.trim());
});
$("bring-token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = event.target.elements.token.value.trim();
  sessionStorage.setItem(KEPT_TOKEN, token);
  enter();
});
$("leave").addEventListener("click", () => showDoor(""));
$("reconnect").addEventListener("click", () => stream.open());
enter();
