// Numbers, times and events as short text for the page. Pure.

const PREVIEW_CHARACTERS = 400;
const ID_FORM = /^[0-9a-z]{6}-([0-9a-f]{13})$/;
const STEPS = ["", "k", "M", "G", "T"];

const two = (number) => String(number).padStart(2, "0");

/** Hours to milliseconds, local time. Written by hand: `toLocaleTimeString` is thirty times slower, and this runs for each row. */
export function clockTime(milliseconds) {
  const date = new Date(milliseconds);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** The time at which the server put an event into its log, in milliseconds, if its id tells. */
export function appendedAt(id) {
  const form = ID_FORM.exec(id);
  return form ? parseInt(form[1], 16) / 1000 : null;
}

export function oneLine(data) {
  return data.slice(0, PREVIEW_CHARACTERS).replace(/\s+/g, " ");
}

/** JSON indented, with lists of numbers on one line; anything else as it is. */
export function pretty(data) {
  try {
    // A string in JSON holds no line break, so this touches structure alone.
    return JSON.stringify(JSON.parse(data), null, 2).replace(/\[\n\s+[^[\]{}"]*?\n\s+\]/g, (list) => list.replace(/\n\s+/g, " "));
  } catch {
    return data;
  }
}

/** 12,345 up to a hundred thousand, then 123 k, 1.23 M. Small rates keep one decimal. */
export function amount(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 100_000) return value < 10 && value % 1 !== 0 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
  return scaled(value);
}

export function bytes(value) {
  return Number.isFinite(value) ? `${scaled(value)}B` : "–";
}

function scaled(value) {
  let step = 0;
  let rest = value;
  while (rest >= 999.5 && step < STEPS.length - 1) {
    rest /= 1000;
    step += 1;
  }
  const digits = step === 0 || Number.isInteger(rest) || rest >= 100 ? 0 : rest < 10 ? 2 : 1;
  return `${rest.toFixed(digits)} ${STEPS[step]}`;
}
