// Small live charts on canvas: lines over time, and the ring.
//
// Owns drawing. Colours come from the style sheet (`color` and `--second` of the canvas), so dark and light need nothing here.

const TURN = Math.PI * 2;
const ROUND = [1, 1.5, 2, 3, 4, 6, 8, 10];

/** The newest `length` values; a value that is missing is NaN and leaves a hole in the line. */
export class Series {
  constructor(length) {
    this.length = length;
    this.values = [];
  }

  push(value) {
    this.values.push(Number.isFinite(value) ? value : NaN);
    if (this.values.length > this.length) this.values.shift();
  }

  get last() {
    return this.values.length > 0 ? this.values[this.values.length - 1] : NaN;
  }
}

/** Fit the canvas to its box at the screen's resolution; null while it has no size. */
function surface(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  if (width === 0 || height === 0) return null;
  const ratio = window.devicePixelRatio || 1;
  const wide = Math.round(width * ratio);
  const high = Math.round(height * ratio);
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

/** A round number above the highest value, so that the scale stays put while values wander. */
export function ceiling(values, least) {
  const highest = values.reduce((most, value) => (value > most ? value : most), least);
  const power = 10 ** Math.floor(Math.log10(highest));
  return ROUND.map((factor) => factor * power).find((value) => value >= highest * 0.999);
}

/** Lines from the right edge backwards, on one scale from 0 to `max`. `label(max)` is written at the top. */
export function drawLines(canvas, series, max, label) {
  const area = surface(canvas);
  if (area === null) return;
  const style = getComputedStyle(canvas);
  const colours = [style.color, style.getPropertyValue("--second")];
  const top = 14;
  drawScale(area, style, top, label(max));
  series.forEach((one, index) => drawLine(area, one, max, top, colours[index], index === 0));
}

function drawScale({ pen, width, height }, style, top, text) {
  pen.strokeStyle = style.getPropertyValue("--grid");
  pen.lineWidth = 1;
  pen.beginPath();
  for (const y of [top + 0.5, Math.round((top + height) / 2) + 0.5, height - 0.5]) {
    pen.moveTo(0, y);
    pen.lineTo(width, y);
  }
  pen.stroke();
  pen.fillStyle = style.getPropertyValue("--faint");
  pen.font = `10px ${style.fontFamily}`;
  pen.textAlign = "right";
  pen.fillText(text, width, top - 4);
}

function drawLine({ pen, width, height }, series, max, top, colour, filled) {
  const step = width / (series.length - 1);
  const from = width - (series.values.length - 1) * step;
  const point = (value, index) => [from + index * step, height - 1 - (Math.min(value, max) / max) * (height - top - 2)];
  for (const run of runs(series.values)) {
    const points = run.map(([value, index]) => point(value, index));
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x, y));
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.stroke();
    if (filled) fillBelow(pen, points, height, colour);
  }
  if (Number.isFinite(series.last)) dot(pen, point(series.last, series.values.length - 1), colour);
}

/** Stretches of values without a hole, as [value, index] pairs. */
function runs(values) {
  const found = [[]];
  values.forEach((value, index) => (Number.isNaN(value) ? found.push([]) : found[found.length - 1].push([value, index])));
  return found.filter((run) => run.length > 0);
}

function fillBelow(pen, points, height, colour) {
  pen.lineTo(points[points.length - 1][0], height);
  pen.lineTo(points[0][0], height);
  pen.globalAlpha = 0.13;
  pen.fillStyle = colour;
  pen.fill();
  pen.globalAlpha = 1;
}

function dot(pen, [x, y], colour) {
  pen.beginPath();
  pen.arc(x - 2, y, 2.2, 0, TURN);
  pen.fillStyle = colour;
  pen.fill();
}

/** The last `counts.length` slots of time as ticks around a ring, the head where the newest is. Height goes with the square root. */
export function drawRing(canvas, counts, head) {
  const area = surface(canvas);
  if (area === null) return;
  const { pen, width, height } = area;
  const style = getComputedStyle(canvas);
  const outer = Math.min(width, height) / 2 - 3;
  const inner = outer * 0.56;
  const most = Math.sqrt(Math.max(2, ...counts));
  pen.translate(width / 2, height / 2);
  pen.lineCap = "round";
  pen.lineWidth = Math.max(1.6, (inner * TURN) / counts.length / 1.9);
  counts.forEach((count, slot) => {
    const age = (head - slot + counts.length) % counts.length;
    const angle = (slot / counts.length) * TURN - TURN / 4;
    const reach = count === 0 ? 0.01 : (outer - inner) * (0.12 + 0.88 * (Math.sqrt(count) / most));
    pen.globalAlpha = count === 0 ? 0.22 : 1 - 0.72 * (age / counts.length);
    pen.strokeStyle = age === 0 ? style.getPropertyValue("--second") : style.color;
    pen.beginPath();
    pen.moveTo(Math.cos(angle) * inner, Math.sin(angle) * inner);
    pen.lineTo(Math.cos(angle) * (inner + reach), Math.sin(angle) * (inner + reach));
    pen.stroke();
  });
  pen.globalAlpha = 1;
}
