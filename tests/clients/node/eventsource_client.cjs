// Runs the npm package `eventsource` against one address and writes what its listeners get, one JSON object a line.
// Usage: node eventsource_client.cjs URL [event type...]
"use strict";

const { EventSource } = require("eventsource");

const [url, ...types] = process.argv.slice(2);
const source = new EventSource(url);

function report(fields) {
  process.stdout.write(JSON.stringify(fields) + "\n");
}

source.onopen = () => report({ state: "open" });
source.onerror = (error) => report({ state: source.readyState === EventSource.CLOSED ? "closed" : "reconnecting", code: error.code });
for (const type of ["message", ...types]) {
  source.addEventListener(type, (event) => report({ type, data: event.data, id: event.lastEventId }));
}
