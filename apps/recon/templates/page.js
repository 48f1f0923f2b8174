// Keeps the page current: /v1/jobs/events, which anybody can read, says that something changed; then the page is
// fetched again, at most once a second, and its contents are replaced.
"use strict";
const live = document.getElementById("live");
const pauseMs = 1000;
let due = 0;

function say(words, isOn) {
  live.textContent = words;
  live.className = isOn ? "on" : "";
}

async function refresh() {
  due = 0;
  const answer = await fetch("/", { cache: "no-store" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.querySelector("main").replaceChildren(...fresh.querySelector("main").childNodes);
}

function changed() {
  if (!due) due = setTimeout(() => refresh().catch(() => say("connecting again", false)), pauseMs);
}

const events = new EventSource("/v1/jobs/events");
events.onopen = () => { say("live", true); changed(); };
events.onerror = () => say("connecting again", false);
events.addEventListener("job", changed);
