// An event stream read with fetch, so that a token goes along in a header and stays out of addresses. Owns reconnection
// (backoff from 1 s to 30 s with jitter, the last id kept, a watchdog for silence); knows nothing of what events mean.

const FIRST_WAIT = 1_000, LONGEST_WAIT = 30_000, SILENCE = 75_000;

export class EventStream {
  #address; #token; #hear; #say;
  #running = null; #lastId = ""; #failures = 0; #retry = FIRST_WAIT; #timer = 0; #watchdog = 0;

  // `hear(type, text)` gets the events; `say(state, text)` what becomes of the connection: "connecting", "live",
  // "waiting", "offline", "ended".
  constructor(address, token, hear, say) {
    this.#address = address;
    this.#token = token;
    this.#hear = hear;
    this.#say = say;
    this.open();
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    const running = this.#running;
    this.#running = null;
    running?.abort();
  }

  async open() {
    this.close();
    const running = this.#running = new AbortController();
    this.#say("connecting", this.#failures ? `Connecting, attempt ${this.#failures + 1}` : "Connecting");
    try {
      const headers = { Accept: "text/event-stream" };
      if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
      if (this.#lastId) headers["Last-Event-ID"] = this.#lastId;
      const answer = await fetch(this.#address, { headers, signal: running.signal, cache: "no-store" });
      if (answer.status !== 200) return this.#end(running, (await answer.json()).reason);
      await this.#read(answer.body.pipeThrough(new TextDecoderStream()), running);
    } catch { /* the connection is lost, or was given up */ }
    if (this.#running === running) this.#later();
  }

  async #read(body, running) {
    let rest = "";
    for await (const piece of body) {
      this.#watch(running);
      const blocks = (rest + piece).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) if (!this.#take(block)) return;
    }
  }

  // False for the server's farewell.
  #take(block) {
    let type = "message", id = null;
    const data = [];
    for (const line of block.split("\n")) {
      const at = line.indexOf(":"), name = line.slice(0, at), value = line.slice(at + 1).replace(/^ /, "");
      if (name === "data") data.push(value);
      else if (name === "event") type = value;
      else if (name === "id") id = value;
      else if (name === "retry") this.#retry = Number(value);
    }
    if (id !== null) this.#lastId = id;
    if (!data.length) return true;
    const text = data.join("\n");
    if (type === "hello") {
      this.#failures = 0;
      this.#say("live", "Live");
    } else if (/^\{"code":"\w+","reason":.*"reconnect":(true|false)\}$/.test(text)) {
      return false;  // who may not come back is told why when it tries
    }
    this.#hear(type, text);
    return true;
  }

  #watch(running) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => running.abort(), SILENCE);
  }

  #end(running, reason) {
    if (this.#running !== running) return;
    this.close();
    this.#say("ended", reason);
  }

  #later() {
    clearTimeout(this.#watchdog);
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures);
    const wait = Math.max(this.#failures ? 0 : this.#retry, longest * (0.5 + Math.random() / 2));
    this.#failures += 1;
    if (navigator.onLine) this.#say("waiting", `Reconnecting in ${Math.ceil(wait / 1_000)} s`);
    else this.#say("offline", "Offline");
    this.#timer = setTimeout(() => this.open(), wait);
  }
}
