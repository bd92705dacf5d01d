// The facilities of a region: looks a place up, loads how everything stands there by REST, and follows the region's
// stream from there on. What comes over the wire is set as text, never as markup.

import { showState } from "../pill.js";
import { Stream } from "../stream.js";

const CITIES = ["Lagos", "Nairobi", "London", "New York", "São Paulo", "Tokyo", "Mumbai", "Auckland", "Suva"];
const HOME = { name: "Lagos", latitude: 6.5244, longitude: 3.3792 };
const EARTH_KM = 6371.0088;
const FARTHEST_KM = Math.PI * EARTH_KM;  // half round; the radius that the server takes for everywhere is a little more
const FIELDS = {
  capacity_update: "capacity_status",
  wait_time_update: "avg_wait_minutes",
  urgent_care_update: "urgent_care_available",
  service_health_update: "service_health",
};
const CAPACITIES = ["low", "medium", "high", "full"];
const MAX_FACILITIES = 500, MAX_CHANGES = 5;

const $ = (id) => document.getElementById(id);
const radians = (degrees) => (degrees * Math.PI) / 180;
const stream = new Stream({ hear: told, say: showState, refused: () => true });  // what is refused may be let in later
let region = { ...HOME, radius: 25 };
let facilities = new Map();  // id → {facts, row, dot, place}
let chosen = "";
let early = null;            // events that came while the facilities were being loaded
let loading = 0;

async function ask(path, parameters) {
  const answer = await fetch(`/api/${path}?${new URLSearchParams(parameters)}`);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.field ? `${value.field}: ${value.reason}` : value.reason);
  return value;
}

const around = () => ({ lat: region.latitude, lon: region.longitude, radius: region.radius });

// --- how everything stands

async function load() {
  const turn = ++loading;
  early = [];
  try {
    // A kept answer may be minutes old, and the stream only tells what changes from now on.
    const found = await ask("facilities/search", { ...around(), limit: MAX_FACILITIES, cache: "skip" });
    if (turn !== loading) return;
    show(found.facilities, found.total);
    $("problem").textContent = "";
  } catch (error) {
    if (turn === loading) $("problem").textContent = error.message;
  }
  if (turn !== loading) return;
  const missed = early;
  early = null;
  missed.forEach(hear);
}

function show(found, total) {
  facilities = new Map(found.map((facts) => [facts.id, make(facts)]));
  if (!facilities.has(chosen)) chosen = "";
  $("list").replaceChildren(...[...facilities.values()].map(({ row }) => row.parentElement));
  $("dots").replaceChildren(...[...facilities.values()].map(({ dot }) => dot));
  for (const facility of facilities.values()) draw(facility);
  $("count").textContent = total > found.length ? `The nearest ${found.length} of ${total} facilities` : `${total} ${total === 1 ? "facility" : "facilities"}`;
  $("nothing").hidden = total > 0;
  summarise();
  choose(chosen);
}

function make(facts) {
  const row = $("row").content.firstElementChild.cloneNode(true).firstElementChild;
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  const place = placeOf(facts.location);
  row.id = `row-${facts.id}`;
  dot.id = `dot-${facts.id}`;
  dot.setAttribute("cx", place.x.toFixed(2));
  dot.setAttribute("cy", place.y.toFixed(2));
  dot.append(document.createElementNS("http://www.w3.org/2000/svg", "title"));
  for (const part of [row, dot]) part.addEventListener("click", () => choose(facts.id, part === dot));
  return { facts, row, dot, place };
}

// Distance and direction from the centre are true, everywhere on earth: over the date line and at the poles too.
function placeOf({ latitude, longitude }) {
  const phi = radians(region.latitude), theta = radians(latitude), across = radians(longitude - region.longitude);
  const east = Math.cos(theta) * Math.sin(across);
  const north = Math.cos(phi) * Math.sin(theta) - Math.sin(phi) * Math.cos(theta) * Math.cos(across);
  const along = Math.sin(phi) * Math.sin(theta) + Math.cos(phi) * Math.cos(theta) * Math.cos(across);
  const far = Math.atan2(Math.hypot(east, north), along) * EARTH_KM;
  const scale = (100 * far) / shownRadius() / (Math.hypot(east, north) || 1);
  return { x: east * scale, y: -north * scale };
}

const shownRadius = () => Math.min(region.radius, FARTHEST_KM);

// --- what comes

function told(type, text) {
  if (type === "hello" || type === "gap") load();
  else if (type in FIELDS) hear(JSON.parse(text));
}

function hear(body) {
  if (early) {
    early.push(body);
    return;
  }
  const facility = facilities.get(body.facility_id);
  if (!facility) return;
  const { facts } = facility, before = { ...facts };
  Object.assign(facts, body.changed_fields, { updated_at: body.timestamp, simulated: body.simulated === true });
  tell(body, before, facts);
  draw(facility);
  for (const part of [facility.row, facility.dot]) {
    part.classList.remove("fresh");
    void part.getBoundingClientRect();
    part.classList.add("fresh");
  }
  summarise();
}

const SAID = {
  capacity_update: (before, after) => `capacity ${before.capacity_status} → ${after.capacity_status}`,
  wait_time_update: (before, after) => `wait ${before.avg_wait_minutes} → ${after.avg_wait_minutes} min`,
  urgent_care_update: (_, after) => (after.urgent_care_available ? "urgent care opens" : "urgent care closes"),
  service_health_update: (_, after) => `service ${after.service_health}`,
};

// Each event has all fields that changed with it; a later one of the same change has nothing new to say.
function tell(body, before, after) {
  if (Object.keys(body.changed_fields).every((name) => before[name] === body.changed_fields[name])) return;
  const said = Object.entries(FIELDS).filter(([, name]) => before[name] !== after[name]).map(([kind]) => SAID[kind](before, after));
  const line = document.createElement("li"), when = document.createElement("time"), what = document.createElement("span");
  when.textContent = new Date(body.timestamp).toLocaleTimeString();
  what.textContent = `${after.name}: ${said.join(", ")}`;
  line.append(when, what);
  $("changes").prepend(line);
  while ($("changes").children.length > MAX_CHANGES) $("changes").lastElementChild.remove();
}

// --- drawing

function draw({ facts, row, dot }) {
  const find = (name) => row.querySelector(name);
  const trouble = facts.service_health === "operational" ? "" : ` · service ${facts.service_health}`;
  row.dataset.capacity = dot.dataset.capacity = facts.capacity_status;
  dot.dataset.health = facts.service_health;
  dot.setAttribute("r", facts.facility_type === "hospital" ? "3" : "2.2");
  dot.firstElementChild.textContent = `${facts.name}: ${facts.capacity_status}, ${facts.avg_wait_minutes} min`;
  find(".name").textContent = facts.name;
  find(".wait").textContent = `${facts.avg_wait_minutes} min`;
  find(".capacity").textContent = facts.capacity_status;
  const open = facts.urgent_care_available;
  const care = facts.facility_type === "urgent_care" ? (open ? " · open" : " · closed") : open ? " · urgent care" : "";
  const marked = facts.simulated ? " · simulated" : "";
  find(".meta").textContent = `${facts.facility_type.replace("_", " ")} · ${distance(facts.distance_km)}${care}${trouble}${marked}`;
}

const distance = (km) => `${km < 10 ? km.toFixed(1) : Math.round(km)} km`;

function summarise() {
  const all = [...facilities.values()].map(({ facts }) => facts);
  for (const name of CAPACITIES) $(name).textContent = all.filter(({ capacity_status }) => capacity_status === name).length;
  const waits = all.map(({ avg_wait_minutes }) => avg_wait_minutes).sort((one, other) => one - other);
  $("median").textContent = waits.length ? waits[Math.floor(waits.length / 2)] : "–";
  $("simulated").hidden = !all.some(({ simulated }) => simulated);
}

function choose(id, scroll = false) {
  for (const [name, { row, dot }] of facilities) {
    dot.classList.toggle("chosen", name === id);
    row.setAttribute("aria-current", name === id);
  }
  chosen = id;
  const facility = facilities.get(id);
  $("label").toggleAttribute("hidden", !facility);
  if (!facility) return;
  $("dots").append(facility.dot);  // on top
  $("label").textContent = facility.facts.name;
  $("label").setAttribute("x", Math.max(-85, Math.min(85, facility.place.x)));
  $("label").setAttribute("y", facility.place.y - 6);
  if (scroll) facility.row.scrollIntoView({ block: "nearest" });
}

function drawRegion() {
  const wide = region.radius > FARTHEST_KM;
  $("title").textContent = wide ? `The whole earth, from ${region.name}` : `${region.radius} km around ${region.name}`;
  for (const part of [1, 2, 3]) $(`scale-${part}`).textContent = `${Number(((shownRadius() * part) / 3).toPrecision(2))} km`;
  $("place").value = region.name;
  $("radius").value = String(region.radius);
  for (const chip of $("chips").children) chip.setAttribute("aria-pressed", chip.textContent === region.name);
}

// --- choosing a region

function go(changes) {
  follow(changes);
  const { name, latitude, longitude, radius } = region;
  history.replaceState(null, "", `#${new URLSearchParams({ name, latitude, longitude, radius })}`);
}

function follow(changes) {
  region = { ...region, ...changes };
  $("changes").replaceChildren();
  hidePlaces();
  drawRegion();
  stream.follow(`/api/stream/facilities/region?${new URLSearchParams(around())}`);
}

const placeFrom = ({ name, location }) => ({ name, latitude: location.latitude, longitude: location.longitude });

async function find(text, limit) {
  return text.trim().length < 2 ? [] : (await ask("geocode", { q: text.trim(), limit })).places;
}

async function goTo(text) {
  try {
    const [place] = await find(text, 1);
    $("problem").textContent = place ? "" : `No place is called ${text}.`;
    if (place) go(text === HOME.name ? HOME : { ...placeFrom(place), name: CITIES.includes(text) ? text : place.name });
  } catch (error) {
    $("problem").textContent = error.message;
  }
}

let offered = [], at = -1, typing = 0;

async function offer() {
  const text = $("place").value;
  const found = await find(text, 6).catch(() => []);
  if (text !== $("place").value || document.activeElement !== $("place")) return;
  offered = found;
  at = -1;
  $("places").replaceChildren(...offered.map((place, index) => {
    const line = document.createElement("li"), country = document.createElement("small");
    line.setAttribute("role", "option");
    line.id = `place-${index}`;
    line.append(place.name, country);
    country.textContent = `${place.country} · ${place.population.toLocaleString()}`;
    line.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      go(placeFrom(place));
    });
    return line;
  }));
  $("places").hidden = !offered.length;
  $("place").setAttribute("aria-expanded", offered.length > 0);
}

function hidePlaces() {
  clearTimeout(typing);
  offered = [];
  $("places").hidden = true;
  $("place").setAttribute("aria-expanded", false);
  $("place").removeAttribute("aria-activedescendant");
}

$("place").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(offer, 150);
});
$("place").addEventListener("blur", hidePlaces);
$("place").addEventListener("keydown", (event) => {
  if (event.key === "Escape") hidePlaces();
  if (!offered.length || (event.key !== "ArrowDown" && event.key !== "ArrowUp")) return;
  event.preventDefault();
  at = (at + (event.key === "ArrowDown" ? 1 : -1) + offered.length) % offered.length;
  [...$("places").children].forEach((line, index) => line.setAttribute("aria-selected", index === at));
  $("place").setAttribute("aria-activedescendant", `place-${at}`);
});
$("chooser").addEventListener("submit", (event) => {
  event.preventDefault();
  if (at >= 0 && offered[at]) go(placeFrom(offered[at]));
  else goTo($("place").value);
});
$("radius").addEventListener("change", () => go({ radius: Number($("radius").value) }));
for (const city of CITIES) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.textContent = city;
  chip.addEventListener("click", () => goTo(city));
  $("chips").append(chip);
}

// --- the beginning

function asked() {
  const given = new URLSearchParams(location.hash.slice(1));
  const numbers = ["latitude", "longitude", "radius"].map((name) => Number.parseFloat(given.get(name)));
  if (numbers.some((number) => !Number.isFinite(number))) return {};
  const [latitude, longitude, radius] = numbers;
  return { name: given.get("name") || "here", latitude, longitude, radius };
}

$("reconnect").addEventListener("click", () => stream.open());
addEventListener("hashchange", () => follow(asked()));
follow(asked());
