// The connection's state in a page's header: the pill, and the button that is offered while the next attempt is far off.
// Knows nothing of streams.

const $ = (id) => document.getElementById(id);

export function showState(state, text) {
  $("state").dataset.state = state;
  $("state-text").textContent = text;
  $("reconnect").hidden = state !== "waiting" && state !== "offline";
}
