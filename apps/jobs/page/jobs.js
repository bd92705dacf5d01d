// The page of jobs: starts them, lists one's own, and follows one by its stream, on the endpoint that the start named.
// What comes over the wire is set as text, never as markup.

import { showState } from "../pill.js";
import { Stream } from "../stream.js";

const ROOT = "/api/v1/jobs";
const KEPT = "ringcast.jobs";      // in this tab's session: gone when it is closed
const MOST = 50;                   // in the list
const MOST_SAID = 200;
const BUSY = 2_000, IDLE = 15_000; // between two looks at the list
const FINAL = ["completed", "failed"];

const $ = (id) => document.getElementById(id);
const stream = new Stream({ hear, say, refused });
let token = sessionStorage.getItem(KEPT) ?? "";
let jobs = [];                     // newest first
let watched = null;                // the job that is shown
let worker = true;

// --- requests

async function ask(method, path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const value = answer.status === 204 ? null : await answer.json();
  if (answer.status === 401) showDoor(token ? `The token does not hold: ${value.reason}` : "");
  if (!answer.ok) throw new Error(value?.field ? `${value.field}: ${value.reason}` : value?.reason ?? `status ${answer.status}`);
  return value;
}

// --- the door

function showDoor(problem) {
  stream.stop();
  $("door").hidden = false;
  $("desk").hidden = $("leave").hidden = true;
  $("token-problem").textContent = problem;
}

function showDesk() {
  $("door").hidden = true;
  $("desk").hidden = false;
  $("leave").hidden = !token;
}

$("bring-token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = event.target.elements.token.value.trim();
  sessionStorage.setItem(KEPT, token);
  look();
});
$("leave").addEventListener("click", () => {
  token = "";
  sessionStorage.removeItem(KEPT);
  jobs = [];
  show(null);
  showDoor("");
});

// --- the list

let looking = 0;
async function look() {
  clearTimeout(looking);
  try {
    const found = await ask("GET", `${ROOT}?limit=${MOST}`);
    showDesk();
    worker = found.workers > 0;
    jobs = found.jobs.map((job) => (job.jobId === watched?.jobId && newer(watched, job) ? { ...job, ...watched } : job));
    drawList();
    if (watched === null && jobs.length) follow(jobs[0]);
  } catch { /* the stream's state says so; the list is as it was */ }
  if ($("desk").hidden && !$("door").hidden) return;
  const others = jobs.some((job) => !FINAL.includes(job.status) && job.jobId !== watched?.jobId);
  looking = setTimeout(look, others ? BUSY : IDLE);
}

const newer = (one, other) => one.timestamp > other.timestamp;

function drawList() {
  const rows = jobs.map((job) => {
    const row = $("row").content.firstElementChild.cloneNode(true);
    const button = row.querySelector("button");
    row.dataset.status = job.status;
    button.setAttribute("aria-current", job.jobId === watched?.jobId);
    button.addEventListener("click", () => follow(job));
    row.querySelector(".what").textContent = job.topics.join(", ");
    row.querySelector(".far").textContent = job.status === "processing" ? `${job.progress} %` : job.status;
    row.querySelector(".when").textContent = `${called(job)} · ${ago(job.created)}`;
    return row;
  });
  $("jobs").replaceChildren(...rows);
  $("no-jobs").hidden = rows.length > 0;
  $("no-worker").hidden = worker;
}

function called({ texts, sources }) {
  const parts = [...(texts ? [texts === 1 ? "a text" : `${texts} texts`] : []), ...sources];
  return parts.length > 2 ? `${parts.length} sources` : parts.join(", ");
}

function ago(moment) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(moment)) / 1_000));
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 129_600 ? `${Math.round(seconds / 3_600)} h ago` : `${Math.round(seconds / 86_400)} d ago`;
}

// --- starting

$("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { topics, text, sources } = event.target.elements;
  const parts = (value, by) => value.split(by).map((part) => part.trim()).filter(Boolean);
  const wanted = { topics: parts(topics.value, ","), sources: parts(sources.value, "\n") };
  if (text.value.trim()) wanted.texts = [text.value];
  $("start-problem").textContent = "";
  try {
    const { jobId, sseEndpoint, status } = await ask("POST", ROOT, wanted);
    follow({ ...wanted, texts: wanted.texts?.length ?? 0, jobId, status, progress: 0, sseEndpoint, timestamp: "" });
    look();
  } catch (error) {
    $("start-problem").textContent = error.message;
  }
});

// --- one job

function follow(job) {
  show(job);
  drawList();
  listen(job);
}

function listen({ jobId, sseEndpoint }) {
  stream.follow(sseEndpoint ?? `${ROOT}/${jobId}/events`, { token });
}

function show(job) {
  watched = job;
  $("no-job").hidden = job !== null;
  $("shown").hidden = job === null;
  $("said").replaceChildren();
  if (!job) return;
  $("job-title").textContent = job.topics.join(", ");
  $("job-title").title = job.jobId;
  draw(job);
}

function take(state) {
  if (state.jobId !== watched?.jobId) return;
  watched = { ...watched, ...state };
  jobs = jobs.map((job) => (job.jobId === state.jobId ? { ...job, ...state } : job));
  const line = document.createElement("li");
  line.textContent = `${new Date(state.timestamp).toLocaleTimeString()}  ${String(state.progress).padStart(3)} %  ${state.stage}  ${state.message}`;
  $("said").prepend(line);
  while ($("said").childElementCount > MOST_SAID) $("said").lastElementChild.remove();
  draw(watched);
  drawList();
}

function draw(job) {
  const { status, progress, stage, message, data } = job;
  $("job").dataset.status = status;
  $("job-status").textContent = status;
  $("progress").value = progress;
  $("percent").textContent = `${progress} %`;
  $("message").textContent = message ?? "";
  $("simulated").hidden = !(data?.simulated || message?.includes("(simulated)"));
  const stages = [...$("stages").children];
  const reached = stage === "failed" ? at(stages, progress) : Math.max(0, stages.findIndex((one) => one.dataset.stage === stage));
  stages.forEach((one, index) => {
    one.classList.toggle("past", index < reached || status === "completed");
    one.classList.toggle("now", index === reached && !FINAL.includes(status));
    one.classList.toggle("broken", index === reached && status === "failed");
  });
  drawResult(data);
}

const at = (stages, progress) => Math.min(stages.length - 2, 1 + (progress >= 50) + (progress >= 90));

function drawResult(data) {
  $("result").hidden = !data;
  if (!data) return;
  $("summary").replaceChildren(...(data.summary ?? []).map(({ source, text }) => {
    const item = element("li", text);
    item.append(element("small", source));
    return item;
  }));
  $("keywords").replaceChildren(...(data.keywords ?? []).map((word) => element("span", word)));
  const sources = (data.sources ?? []).map(({ source, title, words, problem }) =>
    element("li", problem ? `${source}: ${problem}` : `${title ? `${title}, ` : ""}${source}: ${words} words`, problem ? "bad" : ""));
  $("sources").replaceChildren(...sources);
  $("sources-title").hidden = sources.length === 0;
  $("summary-title").hidden = !data.summary?.length;
}

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// --- the stream

function hear(type, text) {
  if (type === "message") take(JSON.parse(text));
  else if (type === "finished") end();
  else if (type === "gap") listen(watched);  // something is lost: a new stream begins with how things stand
}

// 204 is for a job that has ended and whose end was seen; what is refused otherwise may be let in later.
function refused(status) {
  if (status === 204) end();
  return true;
}

function end() {
  stream.stop();
  showState("ended", "The job has ended");
  look();
}

function say(state, text) {
  const over = FINAL.includes(watched?.status) && watched.data;
  if (over && (state === "waiting" || state === "offline")) end();
  else showState(state, state === "off" ? "Nothing is being watched" : text);
}

$("reconnect").addEventListener("click", () => stream.open());

look();
