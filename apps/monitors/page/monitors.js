// The board of monitors: signs in, loads by REST how everything stands, and follows the tenant's stream from there on.
// What comes over the wire is set as text, never as markup.

import { showState } from "../pill.js";
import { Stream } from "../stream.js";

const ROOT = "/api/v1";
const KEPT = "ringcast.monitors";  // in this tab's session: gone when it is closed
const SHOWN = 40;                  // checks in a sparkline
const MAX_INCIDENTS = 60;
const EARLY = 60_000;              // a token is renewed this long before its end, or at half its time
const OVER = ["auth_expired", "revoked"];
const LONGEST_TIMER = 2 ** 31 - 1; // what a browser takes for a longer one is none at all

const $ = (id) => document.getElementById(id);
const byId = (list) => new Map(list.map((one) => [one.id, one]));
const stream = new Stream({ hear, say: showState, refused });
let session = null;                // {token, expires, tenant}
let options = {};
let monitors = new Map();          // id → {facts, checks (oldest first), card}
let incidents = [];                // newest first

// --- requests

async function ask(method, path, body, token = session?.token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(ROOT + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const value = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) {
    if (answer.status === 401 && token) leave("Your session is over. Please sign in again.");
    throw new Error(value?.field ? `${value.field}: ${value.reason}` : value?.reason ?? `status ${answer.status}`);
  }
  return value;
}

// --- the door

function enter({ token, expires_at, tenant }) {
  session = { token, expires: expires_at ? Date.parse(expires_at) : Infinity, tenant: tenant?.name ?? "" };
  sessionStorage.setItem(KEPT, JSON.stringify({ token, expires_at, tenant }));
  renewLater();
  showBoard();
}

const renewalWait = (left) => Math.min(LONGEST_TIMER, Math.max(1_000, left - EARLY, left / 2));
let renewal = 0;
function renewLater() {
  clearTimeout(renewal);
  if (!Number.isFinite(session.expires)) return;
  renewal = setTimeout(async () => {
    const mine = session;
    const fresh = await ask("POST", "/auth/refresh").catch(() => null);  // then the stream's end says so
    if (fresh && session === mine) enter(fresh);
  }, renewalWait(session.expires - Date.now()));
}

function leave(reason = "") {
  clearTimeout(renewal);
  stream.stop();
  session = null;
  sessionStorage.removeItem(KEPT);
  forget();
  $("board").hidden = $("who").hidden = $("state").hidden = true;
  $("door").hidden = false;
  $("sign-in-problem").textContent = reason;
}

// Nothing of a tenant is left for who signs in next.
function forget() {
  monitors = new Map();
  incidents = [];
  $("monitors").replaceChildren();
  $("incidents").replaceChildren();
  $("tenant").textContent = "";
  $("sign-in").reset();
  $("add").reset();
}

async function knock(path, facts) {
  $("sign-in-problem").textContent = "";
  try {
    enter(await ask("POST", path, facts, null));
  } catch (error) {
    $("sign-in-problem").textContent = error.message;
  }
}

function showDoor() {
  $("demo").hidden = !options.demo;
  if (options.demo) {
    $("demo-email").textContent = options.demo.email;
    $("demo-password").textContent = options.demo.password;
  }
  $("accounts").hidden = !options.accounts;
  $("issuer").hidden = options.accounts;
  $("other-way").hidden = !options.registration;
  $("add").elements.interval_seconds.min = options.min_interval_seconds;
}

let registering = false;
$("other-way").addEventListener("click", () => {
  registering = !registering;
  $("door-title").textContent = $("sign-in-button").textContent = registering ? "Register" : "Sign in";
  $("other-way").textContent = registering ? "Sign in instead" : "Register instead";
  $("tenant-field").hidden = !registering;
  $("sign-in").elements.password.autocomplete = registering ? "new-password" : "current-password";
});
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const { email, password, tenant_name } = Object.fromEntries(new FormData(event.target));
  if (!registering) knock("/auth/login", { email, password });
  else knock("/auth/register", { email, password, ...(tenant_name ? { tenant_name } : {}) });
});
$("bring-token").addEventListener("submit", (event) => {
  event.preventDefault();
  enter({ token: event.target.elements.token.value.trim() });
});
$("enter-demo").addEventListener("click", () => knock("/auth/login", options.demo));
$("leave").addEventListener("click", async () => {
  if (options.accounts) await ask("POST", "/auth/logout").catch(() => {});
  leave();
});

// --- how everything stands

async function showBoard() {
  $("door").hidden = true;
  $("board").hidden = $("who").hidden = $("state").hidden = false;
  $("tenant").textContent = session.tenant;
  stream.follow(`${ROOT}/stream/events`, { token: session.token, cursor: stream.cursor });
}

async function load() {
  const mine = session;
  const [found, past] = await Promise.all([ask("GET", "/monitors?limit=500"), ask("GET", `/incidents?limit=${MAX_INCIDENTS}`)]);
  if (session !== mine) return;
  const before = monitors;
  monitors = new Map(found.monitors.map((facts) => [facts.id, {
    facts,
    checks: before.get(facts.id)?.checks ?? [],
    card: before.get(facts.id)?.card ?? makeCard(facts.id),
  }]));
  incidents = past.incidents;
  $("monitors").replaceChildren(...[...monitors.values()].map(({ card }) => card));
  for (const monitor of monitors.values()) {
    const known = before.get(monitor.facts.id)?.facts.last_check;  // the stream may have been faster
    if (known && !(monitor.facts.last_check?.checked_at >= known.checked_at)) follow(monitor.facts, known);
    draw(monitor);
  }
  drawIncidents();
  summarise();
  await loadChecks([...monitors.keys()]);
  options = await ask("GET", "/auth/options", undefined, null);
  summarise();
}

async function loadChecks(ids) {
  const next = async () => {
    for (let id; (id = ids.shift()) !== undefined;) {
      const { checks } = await ask("GET", `/monitors/${id}/checks?limit=${SHOWN}`);
      const monitor = monitors.get(id);  // gone, if somebody has signed out meanwhile
      if (!monitor) continue;
      const news = monitor.checks.filter(({ checked_at }) => !checks.length || checked_at > checks[0].checked_at);
      monitor.checks = [...checks.reverse(), ...news].slice(-SHOWN);
      draw(monitor);
    }
  };
  await Promise.all([next(), next(), next()]);
}

let reloading = 0;
function reloadSoon() {
  clearTimeout(reloading);
  reloading = setTimeout(() => load().catch(() => {}), 150);
}

// --- what comes

function follow(facts, check) {
  facts.last_check = check;
  if (facts.enabled) facts.status = check.success ? "up" : "down";
}

const heard = {
  monitor_check(check) {
    const monitor = monitors.get(check.monitor_id);
    if (!monitor) return;
    if (monitor.checks.at(-1)?.checked_at >= check.checked_at) return;
    monitor.checks = [...monitor.checks, check].slice(-SHOWN);
    follow(monitor.facts, check);
    monitor.card.classList.remove("fresh");
    void monitor.card.offsetWidth;
    monitor.card.classList.add("fresh");
    draw(monitor);
    summarise();
  },
  incident_created: reloadIncidents,
  incident_resolved: reloadIncidents,
};

async function reloadIncidents() {
  const mine = session;
  const found = await ask("GET", `/incidents?limit=${MAX_INCIDENTS}`).catch(() => null);  // a reconnect loads them too
  if (session !== mine || !found) return;
  incidents = found.incidents;
  drawIncidents();
  summarise();
}

function hear(type, text) {
  if (type === "connected") {
    load().catch((error) => console.info(error.message));
  } else if (type === "gap") {
    reloadSoon();
  } else {
    const { data, reason, reconnect } = JSON.parse(text);
    if (OVER.includes(type)) leave(`Signed out: ${reason}.`);
    else if (type in heard) heard[type](data);
    else if (reconnect === undefined) reloadSoon();  // not for a farewell
  }
}

function refused(status) {
  if (status === 401) leave("Your session is over. Please sign in again.");
}

$("reconnect").addEventListener("click", () => stream.open());

// --- drawing

function makeCard(id) {
  const card = $("monitor").content.firstElementChild.cloneNode(true);
  card.id = `monitor-${id}`;
  return card;
}

function draw({ facts, checks, card }) {
  const find = (name) => card.querySelector(name);
  const last = facts.last_check;
  card.dataset.status = facts.status;
  find("h3").textContent = facts.name;
  find("h3").title = facts.name;
  find(".status").textContent = facts.status + (facts.simulated ? " · simulated" : "");
  find(".url").textContent = last && !last.success ? last.error_message ?? "failed" : facts.url;
  find(".url").title = facts.url;
  find(".time").textContent = last?.response_time_ms === undefined || last?.response_time_ms === null ? "–" : `${last.response_time_ms} ms`;
  const good = checks.filter(({ success }) => success).length;
  find(".uptime").textContent = checks.length ? `${Math.round((100 * good) / checks.length)} % of ${checks.length}` : "";
  const days = last?.ssl_expires_at ? Math.floor((Date.parse(last.ssl_expires_at) - Date.now()) / 86_400_000) : null;
  find(".tls").textContent = days === null ? "" : last.ssl_valid ? `TLS ${days} d` : "TLS broken";
  find(".tls").classList.toggle("warn", days !== null && (days < 15 || !last.ssl_valid));
  find(".ago").textContent = ago(last?.checked_at);
  sparkline(find(".spark"), checks);
}

function sparkline(svg, checks) {
  const width = 240, height = 44, step = width / (SHOWN - 1), start = SHOWN - checks.length;
  const top = Math.max(1, ...checks.map(({ response_time_ms }) => response_time_ms ?? 0)) * 1.1;
  const stretches = [[]], marks = [];  // a line ends where a check failed
  checks.forEach((check, index) => {
    const x = (start + index) * step;
    if (!check.success) {
      marks.push(shape("rect", { class: "fail", x: x - step * 0.3, y: 0, width: step * 0.6, height }));
      stretches.push([]);
    } else if (check.response_time_ms >= 0) {
      stretches.at(-1).push([x.toFixed(1), (height - 2 - (check.response_time_ms / top) * (height - 6)).toFixed(1)]);
    }
  });
  const shapes = stretches.filter(({ length }) => length > 1).flatMap((points) => {
    const line = points.map((point) => point.join()).join(" ");
    return [
      shape("polygon", { class: "area", points: `${points[0][0]},${height} ${line} ${points.at(-1)[0]},${height}` }),
      shape("polyline", { class: "line", points: line }),
    ];
  });
  svg.replaceChildren(...marks, ...shapes);
  svg.setAttribute("aria-label", `Response times of the last ${checks.length} checks, ${marks.length} failed`);
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawIncidents() {
  const rows = [...incidents].sort((one, other) => (other.status === "open") - (one.status === "open")).map((incident) => {
    const row = $("incident").content.firstElementChild.cloneNode(true);
    row.dataset.status = incident.status;
    row.querySelector(".what").textContent = `${incident.monitor_name}: ${incident.rule_name}`;
    const over = incident.resolved_at ? ` · over after ${span(Date.parse(incident.resolved_at) - Date.parse(incident.started_at))}` : " · open";
    row.querySelector(".when").textContent = `${incident.trigger_value} · ${ago(incident.started_at)}${over}`;
    return row;
  });
  $("incidents").replaceChildren(...rows);
  $("no-incidents").hidden = rows.length > 0;
}

function summarise() {
  const all = [...monitors.values()];
  const count = (status) => all.filter(({ facts }) => facts.status === status).length;
  const open = incidents.filter(({ status }) => status === "open").length;
  const times = all.map(({ facts }) => facts.last_check?.response_time_ms).filter((time) => time > 0).sort((one, other) => one - other);
  $("up").textContent = count("up");
  $("all").textContent = all.length;
  $("down").textContent = count("down");
  $("down-value").classList.toggle("bad", count("down") > 0);
  $("open").textContent = open;
  $("open-value").classList.toggle("warn", open > 0);
  $("median").textContent = times.length ? times[Math.floor(times.length / 2)] : "–";
  $("no-worker").hidden = options.worker || !all.some(({ facts }) => facts.enabled && !facts.simulated);
  if (!all.length) $("adding").open = true;
}

function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1_000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129_600 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

function ago(moment) {
  return moment ? `${span(Date.now() - Date.parse(moment))} ago` : "";
}

setInterval(() => {
  for (const { facts, card } of monitors.values()) card.querySelector(".ago").textContent = ago(facts.last_check?.checked_at);
}, 1_000);
setInterval(drawIncidents, 30_000);

// --- adding

$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, { name, url, interval_seconds, expected_status, check_ssl, alert } = form.elements;
  $("add-problem").textContent = "";
  try {
    const wanted = { name: name.value, url: url.value, interval_seconds: Number(interval_seconds.value), check_ssl: check_ssl.checked };
    if (expected_status.value) wanted.expected_status = Number(expected_status.value);
    const { id } = await ask("POST", "/monitors", wanted);
    if (alert.checked) await ask("POST", "/alert-rules", { name: "Down", trigger_type: "down", monitor_id: id });
    form.reset();
  } catch (error) {
    $("add-problem").textContent = error.message;
  }
});

// --- the beginning

options = await ask("GET", "/auth/options", undefined, null);
showDoor();
const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
if (kept && !(kept.expires_at && Date.parse(kept.expires_at) < Date.now())) enter(kept);
else leave();
