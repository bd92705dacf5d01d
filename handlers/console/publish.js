// The publish form: one event by POST to channels/{channel}/events.
//
// `data` goes out as a string, so what was typed is what arrives, JSON or not.

const field = (name) => document.getElementById(`publish-${name}`);

export class PublishForm {
  /** `on.watch(channel)` when the reader wants to see where it went; `watched()` is the channel on the page; `headers()` the token's. */
  constructor(on) {
    this.on = on;
    this.form = field("form");
    this.result = field("result");
    this.watch = field("watch");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    field("data").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
    this.watch.addEventListener("click", () => this.on.watch(field("channel").value));
  }

  event() {
    const event = { data: field("data").value };
    for (const name of ["topic", "type"]) if (field(name).value) event[name] = field(name).value;
    if (field("private").checked) event.private = true;
    return event;
  }

  async send() {
    const channel = field("channel").value;
    this.say("", "");
    try {
      const answer = await fetch(`channels/${encodeURIComponent(channel)}/events`, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...this.on.headers() },
        body: JSON.stringify(this.event()),
      });
      const body = await answer.json().catch(() => ({}));
      if (answer.ok) this.say("good", `Published as ${body.ids?.[0] ?? "an event"}`, channel);
      else this.say("bad", `Refused (${answer.status}): ${[body.field, body.reason].filter(Boolean).join(" ")}`);
    } catch {
      this.say("bad", "The server does not answer");
    }
  }

  say(tone, text, channel = "") {
    this.result.className = tone;
    this.result.textContent = text;
    this.watch.hidden = channel === "" || channel === this.on.watched();
    this.watch.textContent = `Watch ${channel}`;
  }
}
