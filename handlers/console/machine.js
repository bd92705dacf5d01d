// Charts of the machine that the node runs on, from the events of channel `host`.
//
// Owns four charts and which figure of an event goes into which; knows nothing of connections.

import { Series, ceiling, drawLines } from "./charts.js";
import { amount, bytes } from "./text.js";

const SAMPLES = 120;
const percent = (value) => (Number.isFinite(value) ? `${value.toFixed(value < 10 ? 1 : 0)} %` : "–");
const perSecond = (value) => `${bytes(value)}/s`;

// `figures` are paths into the event's JSON; `max` is fixed where a figure has a natural ceiling.
const CHARTS = [
  { title: "CPU", figures: [["", "cpu.percent"]], text: percent, max: 100 },
  { title: "Memory", figures: [["", "memory.percent"]], text: percent, max: 100 },
  { title: "Network", figures: [["↓", "network.received_per_second"], ["↑", "network.sent_per_second"]], text: perSecond, least: 1000 },
  { title: "TCP sockets", figures: [["", "sockets.tcp_in_use"]], text: amount, least: 10 },
];

export class Machine {
  constructor(section) {
    this.section = section;
    this.charts = CHARTS.map((chart) => ({ ...chart, ...makeCard(section, chart), series: chart.figures.map(() => new Series(SAMPLES)) }));
  }

  reset() {
    for (const chart of this.charts) chart.series = chart.figures.map(() => new Series(SAMPLES));
    this.draw();
  }

  /** An event's data. What is not there leaves a hole. */
  take(data) {
    let figures;
    try {
      figures = JSON.parse(data);
    } catch {
      return;
    }
    for (const { figures: paths, series } of this.charts) paths.forEach(([, path], index) => series[index].push(look(figures, path)));
  }

  draw() {
    if (this.section.hidden) return;
    for (const { series, canvas, values, figures, text, max, least } of this.charts) {
      figures.forEach(([name], index) => (values[index].textContent = `${name} ${text(series[index].last)}`.trim()));
      drawLines(canvas, series, max ?? ceiling(series.flatMap((one) => one.values), least), text);
    }
  }
}

function look(value, path) {
  return path.split(".").reduce((inner, name) => inner?.[name], value);
}

function makeCard(section, { title, figures }) {
  const card = document.createElement("div");
  card.className = "card";
  const heading = document.createElement("h2");
  heading.textContent = title;
  const value = document.createElement("p");
  value.className = "value small";
  const values = figures.map((_, index) => {
    const span = document.createElement("span");
    span.className = index === 0 ? "first" : "other";
    value.append(span);
    return span;
  });
  const canvas = document.createElement("canvas");
  canvas.className = "chart low";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${title} of this machine over the last two minutes`);
  card.append(heading, value, canvas);
  section.append(card);
  return { canvas, values };
}
