// "What to type next": command lines for this very host, kept in step with what is watched.
//
// A token is never written into a command; its place is taken by the shell variable RINGCAST_TOKEN.

const PLAIN = /^[A-Za-z0-9_./:@%+,=-]+$/;

/** A word of a POSIX shell. */
export function quote(word) {
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** The commands as [what it does, command line]. `base` ends in a slash. */
export function commandsFor({ base, channel, topic, type, cursor, token }) {
  const bearer = token ? ' -H "Authorization: Bearer $RINGCAST_TOKEN"' : "";
  const stream = `${base}channels/${channel}/events`;
  const chosen = topic ? `${stream}?topic=${encodeURIComponent(topic)}` : stream;
  const event = JSON.stringify({ topic: topic && !topic.includes("{") ? topic : "greetings", data: "Hello from a shell" });
  const target = `${base}channels/${channel === "host" ? "main" : channel}/events`;
  return [
    ["Watch this channel", `curl -N${bearer} ${quote(chosen)}`],
    ["Publish an event", `curl${bearer} -H 'Content-Type: application/json' -d ${quote(event)} ${quote(target)}`],
    ["Go on after the last event seen here", cursor ? `curl -N${bearer} -H ${quote(`Last-Event-ID: ${cursor}`)} ${quote(chosen)}` : ""],
    ["Publish as a Mercure client does", `curl${bearer} -d topic=greetings -d data=Hello ${quote(`${base}.well-known/mercure`)}`],
    ["In a page", `new EventSource(${JSON.stringify(chosen)}).addEventListener(${JSON.stringify(type || "message")}, e => console.log(e.data))`],
    ["See the node's figures", `curl${bearer} ${quote(`${base}stats`)}`],
  ];
}

/** The list on the page. Rows are made once; only their text changes. */
export class Commands {
  constructor(container) {
    this.rows = commandsFor({ base: "", channel: "" }).map(([what]) => makeRow(container, what));
  }

  show(facts) {
    commandsFor(facts).forEach(([, command], index) => {
      const { row, code } = this.rows[index];
      row.hidden = command === "";
      if (code.textContent !== command) code.textContent = command;
    });
  }
}

function makeRow(container, what) {
  const row = document.createElement("div");
  row.className = "command";
  const label = document.createElement("p");
  label.className = "note";
  label.textContent = what;
  const code = document.createElement("code");
  code.tabIndex = 0;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "quiet";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", `Copy: ${what}`);
  copy.addEventListener("click", () => copyText(code.textContent, copy, code));
  row.append(label, copy, code);
  container.append(row);
  return { row, code };
}

/** Copy, or select for copying by hand: the clipboard is closed to pages that are neither https nor on this machine. */
export async function copyText(text, button, source) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
