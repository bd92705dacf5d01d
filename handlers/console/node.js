// The node's own figures: GET stats once a second, drawn as three charts.
//
// Owns the polling and the charts of connections and rates. Nothing is asked while the page is hidden, and little where the figures are closed to us.

import { Series, ceiling, drawLines } from "./charts.js";
import { amount } from "./text.js";

const EVERY_MS = 1000;
const LATEST_MS = 5000;
const CLOSED_MS = 30_000;
const SAMPLES = 120;
const NAMES = ["connections", "delivered", "published"];

export class NodeFigures {
  /** `request()` gives the headers to send; `on.channels(names)` tells of the channels that have connections,
   *  `on.applications(names)` of the applications that run. */
  constructor(request, on) {
    this.request = request;
    this.on = on;
    this.quietUntil = 0;
    this.closed = document.getElementById("closed");
    this.charts = NAMES.map((name) => ({
      value: document.getElementById(name),
      canvas: document.getElementById(`${name}-chart`),
      series: new Series(SAMPLES),
    }));
  }

  start() {
    this.poll();
    setInterval(() => this.poll(), EVERY_MS);
  }

  async poll() {
    if (this.asking || document.hidden || performance.now() < this.quietUntil) return;
    this.asking = true;
    const stats = await this.ask().catch(() => null);
    this.asking = false;
    this.take(stats);
  }

  async ask() {
    const answer = await fetch("stats", { headers: this.request(), cache: "no-store", signal: AbortSignal.timeout(LATEST_MS) });
    this.closed.hidden = answer.status < 400 || answer.status >= 500;
    if (!this.closed.hidden) this.quietUntil = performance.now() + CLOSED_MS;
    return answer.ok ? answer.json() : null;
  }

  /** Another token may see more. */
  askAgain() {
    this.quietUntil = 0;
  }

  /** Null (no answer, or none for this address) leaves a hole in each line. */
  take(stats) {
    const rates = stats?.rates ?? {};
    const values = [stats?.connections?.total, rates.delivered_per_second, rates.published_per_second];
    values.forEach((value, index) => this.charts[index].series.push(value));
    if (stats?.connections?.by_channel) this.on.channels(Object.keys(stats.connections.by_channel));
    if (stats?.applications) this.on.applications(stats.applications);
    this.draw();
  }

  draw() {
    for (const { value, canvas, series } of this.charts) {
      value.textContent = amount(series.last);
      drawLines(canvas, [series], ceiling(series.values, 5), amount);
    }
  }
}
