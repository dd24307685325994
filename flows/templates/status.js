"use strict";
// The server draws everything; this only puts the newest picture in place of the last, while somebody looks.
const every = 2000;
const open = (details) => [...details].map((one) => one.open);

async function refresh() {
  const state = document.getElementById("state");
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const now = document.querySelector("main"), then = next.querySelector("main");
    const opened = open(now.querySelectorAll("details"));
    const fresh = [...then.querySelectorAll("details")];
    // Newest first: what is open stays open, counted from the oldest.
    fresh.forEach((one, i) => { const was = opened[opened.length - fresh.length + i]; if (was !== undefined) one.open = was; });
    now.replaceWith(then);
    document.title = next.title;
    state.textContent = next.getElementById("state").textContent;
    state.classList.remove("lost");
  } catch (error) {
    state.textContent = "no answer from the status server: what is shown is old";
    state.classList.add("lost");
  }
}

async function loop() {
  if (!document.hidden && !document.querySelector("main").hasAttribute("data-ended")) await refresh();
  setTimeout(loop, every);
}
setTimeout(loop, every);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
