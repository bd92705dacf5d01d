// The event-stream format: text in, events out.
//
// Owns the parsing of fields, blocks and line ends (HTML Living Standard 9.2.6). Knows nothing of connections or of the page.
// The browser's own EventSource is no use to a console: it hides events whose type it was not told of, comments, and what the server answered.

const LINE_FEED = "\n";
const CARRIAGE_RETURN = "\r";

export class Parser {
  /** `on.event({id, type, data})` for each event, `on.cursor(id)` whenever the last id moves, `on.retry(ms)`. */
  constructor(on, lastId = "") {
    this.on = on;
    this.lastId = lastId;
    this.rest = "";
    this.afterReturn = false;
    this.reset();
  }

  reset() {
    this.type = "";
    this.lines = [];
    this.id = this.lastId;
  }

  /** Take decoded text, in pieces of any size. */
  push(text) {
    if (text === "") return;
    // A CR at the end of one piece and an LF at the start of the next are one line end.
    const skip = this.afterReturn && text[0] === LINE_FEED ? 1 : 0;
    const buffer = this.rest + (skip ? text.slice(1) : text);
    this.afterReturn = false;
    let start = 0;
    let feed = buffer.indexOf(LINE_FEED);
    let back = buffer.indexOf(CARRIAGE_RETURN);
    while (feed !== -1 || back !== -1) {
      const end = feed === -1 || (back !== -1 && back < feed) ? back : feed;
      const line = buffer.slice(start, end);
      start = end + 1;
      if (end === back) {
        if (feed === start) start += 1;
        else this.afterReturn = start === buffer.length;
        back = buffer.indexOf(CARRIAGE_RETURN, start);
      }
      if (feed !== -1 && feed < start) feed = buffer.indexOf(LINE_FEED, start);
      this.line(line);
    }
    this.rest = buffer.slice(start);
  }

  line(line) {
    if (line === "") return this.dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const name = colon === -1 ? line : line.slice(0, colon);
    const from = line[colon + 1] === " " ? colon + 2 : colon + 1;
    return this.field(name, colon === -1 ? "" : line.slice(from));
  }

  field(name, value) {
    if (name === "data") this.lines.push(value);
    else if (name === "event") this.type = value;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.on.retry(Number(value));
  }

  dispatch() {
    if (this.id !== this.lastId) {
      this.lastId = this.id;
      this.on.cursor(this.id);
    }
    if (this.lines.length > 0) this.on.event({ id: this.lastId, type: this.type || "message", data: this.lines.join("\n") });
    this.reset();
  }
}
