// A subscription: one stream that is kept up until it is stopped, or until the server says that there is no coming back.
//
// Owns the connection, its state and the cursor it resumes from. Knows nothing of the page. States, as `on.state({name, reason, seconds})`:
//   connecting, live, waiting (comes back in `seconds`), ended (does not). One that was stopped says nothing more.
// The token goes out as a header, never in an address: addresses end up in histories and logs.

import { Parser } from "./eventstream.js";

const FIRST_RETRY_MS = 2000;
const LONGEST_RETRY_MS = 60_000;
const QUIET_CHECK_MS = 1000;

export class Subscription {
  /** `on` has `event`, `cursor` and `state`. `url` carries no token. */
  constructor(url, token, on) {
    this.url = url;
    this.token = token;
    this.on = on;
    this.cursor = "";
    this.retryMs = FIRST_RETRY_MS;
    this.stopped = false;
    this.last = null;
    this.timer = 0;
  }

  start() {
    clearTimeout(this.timer);
    this.run();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  async run() {
    this.last = null;
    this.abort = new AbortController();
    this.state({ name: "connecting" });
    try {
      const answer = await fetch(this.url, this.request());
      if (isStream(answer)) await this.read(answer.body);
      else this.last = await refusal(answer, this);
    } catch {
      // The server is away, the network broke, or `abort` was called: each is a reason to come back, and `stopped` says if not to.
    }
    this.settle();
  }

  request() {
    const headers = { Accept: "text/event-stream" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (this.cursor) headers["Last-Event-ID"] = this.cursor;
    return { headers, cache: "no-store", credentials: "same-origin", signal: this.abort.signal };
  }

  async read(body) {
    const parser = new Parser({ event: (event) => this.take(event), cursor: (id) => this.move(id), retry: (ms) => (this.retryMs = ms) }, this.cursor);
    const decoder = new TextDecoder();
    const reader = body.getReader();
    this.heard = performance.now();
    const watch = setInterval(() => this.noticeSilence(), QUIET_CHECK_MS);
    try {
      for (let piece = await reader.read(); !piece.done && !this.stopped; piece = await reader.read()) {
        this.heard = performance.now();
        parser.push(decoder.decode(piece.value, { stream: true }));
      }
    } finally {
      clearInterval(watch);
    }
  }

  take(event) {
    const control = controlOf(event);
    if (control?.kind === "hello") {
      this.quietLimitMs = Number(control.body.heartbeat_seconds) * 2000;
      this.state({ name: "live" });
    }
    if (control?.kind === "ending") this.last = control.body;
    if (this.stopped) return;
    try {
      this.on.event(event, control);
    } catch (error) {
      reportError(error); // a defect of the page must be seen as one, and not pass for a broken connection
    }
  }

  move(id) {
    this.cursor = id;
    if (!this.stopped) this.on.cursor(id);
  }

  // Two heartbeats missed: the peer is gone, though the socket may not know it for a quarter of an hour.
  noticeSilence() {
    if (this.quietLimitMs > 0 && performance.now() - this.heard > this.quietLimitMs) this.abort.abort();
  }

  settle() {
    if (this.stopped) return undefined;
    const { last } = this;
    if (last && last.reconnect === false) return this.state({ name: "ended", reason: last.reason || last.code });
    const seconds = Math.min(this.retryMs, LONGEST_RETRY_MS) / 1000;
    this.timer = setTimeout(() => this.run(), seconds * 1000);
    return this.state({ name: "waiting", seconds, reason: last?.reason });
  }

  state(state) {
    if (!this.stopped) this.on.state(state);
  }
}

function isStream(answer) {
  return answer.status === 200 && (answer.headers.get("Content-Type") || "").startsWith("text/event-stream");
}

/** What an answer that is no stream means for coming back. */
async function refusal(answer, subscription) {
  const body = await answer.json().catch(() => ({}));
  const after = Number(answer.headers.get("Retry-After"));
  if (after > 0) subscription.retryMs = after * 1000;
  const reconnect = answer.status === 429 || answer.status >= 500;
  const reason = answer.status === 204 ? "there will be no more events" : body.reason || `the server answered ${answer.status}`;
  return { code: body.code || String(answer.status), reason: body.field ? `${body.field}: ${reason}` : reason, reconnect };
}

const CONTROL_KINDS = new Map([
  ["hello", "hello"], ["gap", "gap"], ["heartbeat", "heartbeat"],
  ...[
    "overloaded", "too_many", "rate_limited", "draining", "unavailable", "max_age", "idle", "slow",
    "auth_expired", "finished", "unauthorized", "forbidden", "not_found", "bad_request",
  ].map((code) => [code, "ending"]),
]);

/** `{kind, body}` for an event of a name that only the server may use, else null. */
export function controlOf(event) {
  const kind = CONTROL_KINDS.get(event.type);
  return kind === undefined ? null : { kind, body: asObject(event.data) };
}

function asObject(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : {};
  } catch {
    return {};
  }
}
