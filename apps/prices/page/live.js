// What comes live, apart from the history that was loaded: a bounded buffer of points for each item, and their
// averages over the steps of a chart. Knows nothing of the page.

export const PERIODS = {  // how far back, and how far apart points are, in milliseconds
  "1h": [3_600_000, 60_000],
  "24h": [86_400_000, 300_000],
  "7d": [7 * 86_400_000, 1_800_000],
  "30d": [30 * 86_400_000, 7_200_000],
  "90d": [90 * 86_400_000, 21_600_000],
  "1y": [365 * 86_400_000, 86_400_000],
  "all": [Infinity, 86_400_000],
};
const MOST = 2_000;  // points of an item

const buffers = new Map();  // item → points {at, high, low}, oldest first

export function add(item, point) {
  const points = buffers.get(item) ?? [];
  points.push(point);
  if (points.length > MOST) points.splice(0, points.length - MOST);
  buffers.set(item, points);
}

// Of what is no longer followed: the buffer would have a hole when it is again.
export function forget(item) {
  buffers.delete(item);
}

export function tipOf(item) {
  return buffers.get(item)?.at(-1) ?? null;
}

// One average for each whole step; what the present step will be is not known yet.
export function consolidated(item, step, now) {
  const steps = new Map();
  for (const point of buffers.get(item) ?? []) {
    const at = Math.floor(point.at / step) * step;
    steps.set(at, [...(steps.get(at) ?? []), point]);
  }
  const present = Math.floor(now / step) * step;
  return [...steps].filter(([at]) => at < present).map(([at, points]) => ({ at, high: mean(points, "high"), low: mean(points, "low") }));
}

function mean(points, side) {
  const known = points.map((point) => point[side]).filter((value) => value !== null);
  return known.length ? Math.round(known.reduce((sum, value) => sum + value, 0) / known.length) : null;
}

// History, then what came after it; the tip comes last.
export function merged(history, item, step, now) {
  const last = history.at(-1)?.at ?? -Infinity;
  const later = consolidated(item, step, now).filter(({ at }) => at > last);
  const tip = tipOf(item);
  const points = [...history, ...later];
  return tip && tip.at > (points.at(-1)?.at ?? -Infinity) ? [...points, tip] : points;
}
