// Keeps the progress page current: asks for the progress every two seconds and writes it into the page.
// Without this file the page reloads itself instead, and Cancel asks on a page of its own.
"use strict";

const INTERVAL_MS = 2000;
const FINAL = new Set(["completed", "failed", "cancelled"]);
const numbers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function write(field, text) {
  const place = document.querySelector(`[data-field="${field}"]`);
  // Only what changed: a screen reader announces every write to a live region.
  if (place !== null && place.textContent !== text) place.textContent = text;
}

function count(value) {
  return value === null || value === undefined ? "–" : numbers.format(value);
}

function show(main, progress) {
  // Never 100 before it is completed: the last batch is not the end.
  const percent = progress.total > 0 ? Math.min(99, Math.round((100 * progress.completed) / progress.total)) : 0;
  document.title = `${percent} % · ${main.dataset.importId} · imports`;
  const status = document.querySelector(".status");
  status.dataset.status = progress.status;
  write("status", progress.status);
  write("percent", `${percent} %`);
  write("completed", count(progress.completed));
  write("total", count(progress.total));
  write("table", progress.current_table ? `${progress.current_table}, ${progress.current_operation}` : "–");
  write("batch", count(progress.current_batch));
  write("rows", progress.rows_total > 0 ? `${count(progress.rows_completed)} of ${count(progress.rows_total)}` : "–");
  write("rate", progress.rows_per_second === null ? "–" : `${count(progress.rows_per_second)} rows/s`);
  write("left", duration(progress.estimate_s));
  write("rejected", count(progress.rejected_rows));
  write("extract", progress.extract_number === null ? "–" : `${progress.extract_number}, ${progress.extract_type}`);
  write("snapshot", progress.snapshot_date || "–");
  write("step", progress.step || "–");
  write("job", progress.job_id || "–");
  const bar = document.querySelector("progress");
  if (progress.total > 0) {
    bar.max = progress.total;
    bar.value = progress.completed;
  }
  for (const stage of document.querySelectorAll(".stages li")) {
    if (stage.dataset.stage === progress.status) stage.setAttribute("aria-current", "step");
    else stage.removeAttribute("aria-current");
  }
}

async function refresh(main) {
  try {
    const answer = await fetch(main.dataset.progressUrl, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const progress = await answer.json();
    if (FINAL.has(progress.status)) {
      location.reload();
      return;
    }
    show(main, progress);
    write("lost", "");
  } catch (error) {
    write("lost", `No news at the moment (${error.message}). The import goes on; this page keeps asking.`);
  }
  setTimeout(refresh, INTERVAL_MS, main);
}

function askInDialog(link, dialog) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    dialog.showModal();
  });
  dialog.querySelector("[data-keep]").addEventListener("click", (event) => {
    event.preventDefault();
    dialog.close();
  });
}

const main = document.querySelector("main[data-progress-url]");
if (main !== null && !FINAL.has(main.dataset.status)) {
  const link = document.querySelector("[data-cancel]");
  const dialog = document.querySelector("dialog");
  if (link !== null && dialog !== null) askInDialog(link, dialog);
  setTimeout(refresh, INTERVAL_MS, main);
}
