// A stream that is followed: read with fetch, so that a token travels in a header and stays out of addresses, and a
// refusal can be shown.
//
// Owns the format (HTML Living Standard 9.2.6), the connection's state, and coming back: with the cursor, after a backoff
// with jitter, never sooner than the server asked for, and also when nothing was heard for too long. Knows nothing of
// what events mean, nor of the page.
//
// States: "off" (nothing is followed), "connecting", "live" (the server has greeted), "waiting" (lost; the next attempt
// is at `due`), "offline" (as that, but this machine is not connected, or the server refuses), "ended" (refused).

const FIRST_WAIT = 1_000, LONGEST_WAIT = 30_000;
const SILENCE = 75_000;      // until the server has said how often its heart beats
const SILENT_BEATS = 2.5;

export class Parser {
  #on; #id; #rest = ""; #afterReturn = false; #type = ""; #lines = [];

  // `on.event({type, data, id})` for each event, `on.cursor(id)` for each block, `on.retry(milliseconds)`.
  constructor(on, id = "") {
    this.#on = on;
    this.#id = id;
  }

  // Takes decoded text, in pieces of any size.
  push(text) {
    if (text === "") return;
    // A CR at the end of one piece and an LF at the start of the next are one line end.
    const more = this.#afterReturn && text.startsWith("\n") ? text.slice(1) : text;
    const lines = (this.#rest + more).split(/\r\n|\r|\n/);
    this.#afterReturn = text.endsWith("\r");
    this.#rest = lines.pop();
    for (const line of lines) this.#take(line);
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const at = line.indexOf(":");
    const name = at < 0 ? line : line.slice(0, at), value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
    if (name === "data") this.#lines.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.#on.retry(Number(value));
  }

  #dispatch() {
    const type = this.#type || "message", data = this.#lines;
    this.#type = "";
    this.#lines = [];
    this.#on.cursor(this.#id);
    if (data.length) this.#on.event({ type, data: data.join("\n"), id: this.#id });
  }
}

export class Stream {
  state = "off"; due = 0; cursor = "";
  #on; #address = ""; #token = ""; #running = null; #failures = 0; #retry = 0; #silence = SILENCE; #timer = 0; #watchdog = 0;

  // `on.hear(type, data)` gets the events, the server's own too; `on.say(state, text)` what becomes of the connection;
  // `on.refused(status, reason)`, if it is there, a refusal, and is true if another attempt is to be made all the same.
  constructor(on) {
    this.#on = on;
    addEventListener("online", () => { if (this.state === "waiting" || this.state === "offline") this.open(); });
    addEventListener("offline", () => { if (this.#running || this.#timer) this.#say("offline", "Offline"); });
  }

  // From now on this stream and no other, after `cursor`.
  follow(address, { token = "", cursor = "" } = {}) {
    this.#address = address;
    this.#token = token;
    this.cursor = cursor;
    this.#failures = 0;
    this.open();
  }

  stop() {
    this.#drop();
    this.cursor = "";
    this.#say("off", "Not connected");
  }

  // Connects now, whatever was there before.
  async open() {
    this.#drop();
    const running = this.#running = new AbortController();
    this.#say("connecting", this.#failures ? `Connecting, attempt ${this.#failures + 1}` : "Connecting");
    this.#watch(running);
    let state = "waiting";
    try {
      const answer = await fetch(this.#address, { headers: this.#headers(), signal: running.signal, cache: "no-store" });
      if (answer.status === 200) await this.#read(answer.body, running);
      else if (answer.status !== 429 && answer.status < 500) {
        const reason = await reasonOf(answer);
        if (this.#running !== running) return;
        if (!this.#on.refused?.(answer.status, reason)) return this.#end(running, reason);
        state = "offline";
      }
    } catch { /* the connection is lost, or was given up */ }
    if (this.#running === running) this.#later(state);
  }

  #headers() {
    const headers = { Accept: "text/event-stream" };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    if (this.cursor) headers["Last-Event-ID"] = this.cursor;
    return headers;
  }

  // After a farewell it comes back as after any end: who may not is refused then, and told why.
  async #read(body, running) {
    let first = true;
    const mine = (take) => (given) => { if (this.#running === running) take(given); };
    const parser = new Parser({
      cursor: mine((id) => { this.cursor = id; }),
      retry: mine((milliseconds) => { this.#retry = milliseconds; }),
      event: mine(({ type, data }) => {
        if (first) this.#greeted(data);
        first = false;
        this.#hear(type, data);
      }),
    }, this.cursor);
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();  // not every browser lets one iterate over it
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.#running !== running) return;
      parser.push(value);
      if (this.#running === running) this.#watch(running);
    }
  }

  // The first event is the greeting, whatever its type, or a farewell: a full server answers so.
  #greeted(data) {
    const beat = JSON.parse(data).heartbeat_seconds;
    if (beat === undefined) return;
    this.#failures = 0;
    this.#silence = beat ? SILENT_BEATS * 1_000 * beat : SILENCE;
    this.#say("live", "Live");
  }

  // An event that the page makes nothing of is no fault of the connection.
  #hear(type, data) {
    try {
      this.#on.hear(type, data);
    } catch (error) {
      reportError(error);
    }
  }

  #watch(running) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => running.abort(), this.#silence);
  }

  #later(state) {
    this.#drop();
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures);
    const wait = Math.max(this.#retry, longest * (0.5 + Math.random() / 2));
    this.#retry = 0;
    this.#failures += 1;
    this.due = Date.now() + wait;
    this.#timer = setTimeout(() => this.open(), wait);
    const lost = state === "waiting" && navigator.onLine;
    this.#say(lost ? "waiting" : "offline", `${lost ? "Connection lost" : "Offline"}, next attempt in ${Math.ceil(wait / 1_000)} s`);
  }

  #end(running, reason) {
    if (this.#running !== running) return;
    this.#drop();
    this.#say("ended", reason);
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    this.#timer = 0;
    const running = this.#running;
    this.#running = null;
    running?.abort();
  }

  #say(state, text) {
    this.state = state;
    this.#on.say(state, text);
  }
}

async function reasonOf(answer) {
  const facts = await answer.json().catch(() => null);  // a proxy's, or none at all
  return facts?.reason ?? `The server answers with status ${answer.status}`;
}
