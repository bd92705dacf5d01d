// The list of events, newest first.
//
// Owns the rows on the page and the events behind them; knows nothing of connections. Bounded whatever arrives: at most MOST events are kept and MOST
// rows exist. Events wait in an array until the next animation frame, which takes the newest and reuses the oldest rows, so a flood costs one
// update a frame and not one an event. Everything that came over the wire is set as text, never as markup.
// While paused or scrolled down, the rows stand still and what arrives is counted.

import { clockTime, oneLine } from "./text.js";

export const MOST = 500;
// Above this rate nobody reads single rows: a frame in six is enough and leaves the processor to the rest of the page.
const CALM_ROWS = 40;
const CALM_MS = 100;

export class Rows {
  /** `elements`: list, empty, held. `on.choose(entry)` when a row is chosen. */
  constructor(elements, on) {
    Object.assign(this, elements);
    this.on = on;
    this.recent = [];
    this.waiting = [];
    this.waitingCount = 0;
    this.filter = "";
    this.paused = false;
    this.chosen = null;
    this.frame = 0;
    this.flushed = 0;
    this.serial = 0;
    this.entries = new WeakMap();
    this.list.addEventListener("click", (event) => this.choose(event.target.closest("li")));
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("scroll", () => this.schedule(), { passive: true });
    this.held.addEventListener("click", () => this.toTop());
  }

  /** An event that arrived. `entry` is {event, kind, appended, arrived, note}. */
  add(entry) {
    this.recent.push(entry);
    if (this.recent.length >= 2 * MOST) this.recent = this.recent.slice(-MOST);
    if (!this.matches(entry)) return;
    this.waiting.push(entry);
    this.waitingCount += 1;
    if (this.waiting.length >= 2 * MOST) this.waiting = this.waiting.slice(-MOST);
    this.schedule();
  }

  matches({ event, kind }) {
    if (this.filter === "" || kind !== "event") return true;
    return [event.type, event.id, event.data].some((text) => text.toLowerCase().includes(this.filter));
  }

  setFilter(text) {
    this.filter = text.trim().toLowerCase();
    this.refill(this.recent.slice(-MOST).filter((entry) => this.matches(entry)));
  }

  setPaused(paused) {
    this.paused = paused;
    this.schedule();
  }

  clear() {
    this.recent = [];
    this.refill([]);
  }

  refill(entries) {
    this.waiting = entries;
    this.waitingCount = entries.length;
    this.list.replaceChildren();
    this.list.scrollTop = 0;
    this.mark(null);
    this.flush();
  }

  get still() {
    return this.paused || this.list.scrollTop > 2;
  }

  schedule() {
    if (this.frame === 0) this.frame = requestAnimationFrame((now) => this.onFrame(now));
  }

  onFrame(now) {
    this.frame = 0;
    if (this.still) return this.showHeld();
    if (this.waiting.length > CALM_ROWS && now - this.flushed < CALM_MS) return this.schedule();
    this.flushed = now;
    return this.flush();
  }

  flush() {
    const entries = this.waiting.slice(-MOST);
    this.waiting = [];
    this.waitingCount = 0;
    const rows = document.createDocumentFragment();
    for (const entry of entries) rows.prepend(this.draw(this.take(entries.length), entry));
    this.list.prepend(rows);
    this.empty.hidden = this.list.childElementCount > 0;
    this.showHeld();
  }

  /** A row to draw on: a new one while there are few, else the oldest. */
  take(incoming) {
    const oldest = this.list.lastElementChild;
    if (oldest === null || this.list.childElementCount + incoming <= MOST) return makeRow();
    if (oldest === this.chosen) this.mark(null);
    oldest.remove();
    return oldest;
  }

  draw(row, entry) {
    const [time, type, data] = row.children;
    row.className = entry.kind === "event" && entry.event.type === "message" ? "event plain" : entry.kind;
    row.id = `row-${(this.serial += 1)}`;
    time.textContent = clockTime(entry.appended ?? entry.arrived);
    type.textContent = entry.event.type;
    data.textContent = entry.note || oneLine(entry.event.data);
    this.entries.set(row, entry);
    return row;
  }

  showHeld() {
    const count = this.still ? this.waitingCount : 0;
    this.held.hidden = count === 0;
    if (count > 0) this.held.textContent = `${count.toLocaleString("en")} new ${this.paused ? "while paused" : "above"}`;
  }

  toTop() {
    this.list.scrollTop = 0;
    if (this.paused) this.on.resume();
    this.schedule();
  }

  choose(row) {
    if (!row) return;
    this.mark(row);
    this.on.choose(this.entries.get(row));
  }

  mark(row) {
    this.chosen?.removeAttribute("aria-selected");
    this.chosen = row;
    if (row === null) return this.list.removeAttribute("aria-activedescendant");
    row.setAttribute("aria-selected", "true");
    return this.list.setAttribute("aria-activedescendant", row.id);
  }

  key(event) {
    const to = this.target(event.key);
    if (to === undefined) return;
    event.preventDefault();
    if (to === null) return;
    this.choose(to);
    to.scrollIntoView({ block: "nearest" });
  }

  target(key) {
    const { list, chosen } = this;
    if (key === "ArrowDown") return chosen ? chosen.nextElementSibling : list.firstElementChild;
    if (key === "ArrowUp") return chosen ? chosen.previousElementSibling : list.firstElementChild;
    if (key === "Home") return list.firstElementChild;
    if (key === "End") return list.lastElementChild;
    return undefined;
  }
}

function makeRow() {
  const row = document.createElement("li");
  row.setAttribute("role", "option");
  row.append(document.createElement("time"), document.createElement("b"), document.createElement("span"));
  return row;
}
