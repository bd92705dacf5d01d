// The chart: two lines, the band between them, axes, and the live tip at the right edge. Draws what it is given.

const LEFT = 8, RIGHT = 66, TOP = 10, BOTTOM = 24;
const STEPS = [1, 2, 2.5, 5, 10];
const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const TICKS = [MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 5 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 61 * DAY, 91 * DAY, 183 * DAY, 365 * DAY];

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The round number a bit above.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return STEPS.find((step) => step * power >= value) * power;
}

// A price in few characters: three digits of it, or as many decimals as the steps of an axis need.
export function short(value, step) {
  const [unit, name] = value >= 1e9 ? [1e9, "b"] : value >= 1e6 ? [1e6, "m"] : value >= 1e5 ? [1e3, "k"] : [1, ""];
  const scaled = value / unit;
  if (step === undefined) return name ? `${scaled.toFixed(Math.max(0, 2 - Math.floor(Math.log10(scaled))))}${name}` : value.toLocaleString("en");
  const whole = (digits) => Math.abs((step / unit) * 10 ** digits - Math.round((step / unit) * 10 ** digits)) < 1e-6;
  const digits = [0, 1, 2, 3].find(whole) ?? 3;
  return `${scaled.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}${name}`;
}

function clock(at, span) {
  const moment = new Date(at);
  if (span <= 2 * DAY) return moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (span <= 200 * DAY) return moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return moment.toLocaleDateString("en-GB", { month: "short", year: "2-digit" });
}

// `points` {at, high, low}, oldest first; `tip` is the last of them if it is live; from and to in milliseconds.
export function draw(svg, { points, tip, from, to, cross }) {
  const { width, height } = svg.getBoundingClientRect();
  if (width < 120 || height < 80) return null;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const values = points.flatMap(({ high, low }) => [high, low]).filter((value) => value !== null);
  if (!values.length) {
    svg.replaceChildren();
    return null;
  }
  const scale = scales(values, { from, to, width, height });
  svg.replaceChildren(
    ...axes(scale, width, height),
    ...band(points, scale),
    ...["high", "low"].flatMap((side) => line(points, side, scale, tip, to)),
    ...(cross ? [shape("line", { class: "cross", x1: scale.x(cross.at), x2: scale.x(cross.at), y1: TOP, y2: height - BOTTOM })] : []),
  );
  return scale;
}

function scales(values, { from, to, width, height }) {
  let bottom = Math.min(...values), top = Math.max(...values);
  const room = (top - bottom) * 0.08 || Math.max(1, top * 0.02);
  bottom = Math.max(0, bottom - room);
  top += room;
  const x = (at) => LEFT + ((Math.max(at, from) - from) / (to - from)) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - ((value - bottom) / (top - bottom)) * (height - TOP - BOTTOM);
  const at = (x) => from + ((x - LEFT) / (width - LEFT - RIGHT)) * (to - from);
  return { x, y, at, from, to, bottom, top };
}

function axes({ x, y, from, to, bottom, top }, width, height) {
  const shapes = [];
  const step = nice((top - bottom) / Math.max(2, Math.floor(height / 70)));
  for (let value = Math.ceil(bottom / step) * step; value <= top; value += step) {
    shapes.push(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    shapes.push(shape("text", { x: width - RIGHT + 10, y: y(value) + 4 }, short(value, step)));
  }
  const span = to - from, most = Math.max(2, Math.floor(width / 110));
  const tick = TICKS.find((one) => span / one <= most) ?? 730 * DAY;
  const zone = new Date(to).getTimezoneOffset() * MINUTE;  // days begin where the reader is
  for (let at = Math.ceil((from - zone) / tick) * tick + zone; at <= to; at += tick) {
    if (x(at) > LEFT + 14 && x(at) < width - RIGHT - 14) shapes.push(shape("text", { x: x(at), y: height - 6, "text-anchor": "middle" }, clock(at, span)));
  }
  return shapes;
}

function band(points, { x, y }) {
  const both = points.filter(({ high, low }) => high !== null && low !== null);
  if (both.length < 2) return [];
  const there = both.map(({ at, high }) => `${x(at).toFixed(1)},${y(high).toFixed(1)}`);
  const back = both.reverse().map(({ at, low }) => `${x(at).toFixed(1)},${y(low).toFixed(1)}`);
  return [shape("polygon", { class: "band", points: [...there, ...back].join(" ") })];
}

// The line, and from its end to the present: that is the price until another trade.
function line(points, side, { x, y }, tip, to) {
  const known = points.filter((point) => point[side] !== null);
  if (!known.length) return [];
  const place = (point) => `${x(point.at).toFixed(1)},${y(point[side]).toFixed(1)}`;
  const last = known.at(-1), level = y(last[side]).toFixed(1), edge = x(to).toFixed(1);
  const shapes = [
    shape("polyline", { class: `line ${side}`, points: known.map(place).join(" ") }),
    shape("line", { class: `line reach ${side}`, x1: x(last.at), x2: edge, y1: level, y2: level }),
  ];
  if (tip) {
    shapes.push(shape("circle", { class: `halo ${side}`, cx: edge, cy: level, r: 9 }));
    shapes.push(shape("circle", { class: `live ${side}`, cx: edge, cy: level, r: 4 }));
  }
  return shapes;
}
