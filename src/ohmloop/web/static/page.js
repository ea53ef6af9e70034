// What the pages gain where JavaScript runs; every action works without it.
"use strict";

const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// -- times: UTC in the page, the reader's own here ------------------------------------------------
for (const time of $$("time[datetime]")) {
  const moment = new Date(time.dateTime);
  if (Number.isNaN(moment.getTime())) continue;
  time.title = time.textContent;
  const two = (n) => String(n).padStart(2, "0");
  time.textContent =
    `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} ` +
    `${two(moment.getHours())}:${two(moment.getMinutes())}`;
}

// -- light and dark: without losing what was typed ------------------------------------------------
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
for (const form of $$("[data-theme-form]")) {
  const button = form.querySelector("button");
  const name = () => {
    button.value = isDark() ? "light" : "dark";
    button.textContent = isDark() ? "Light page" : "Dark page";
  };
  name();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    document.documentElement.dataset.theme = button.value;
    document.cookie = `ohmloop_theme=${button.value}; path=/; max-age=31536000; samesite=strict`;
    name();
    document.dispatchEvent(new Event("themechange"));
  });
}

// -- jobs: live progress by server-sent events ----------------------------------------------------
// Browsers hold six connections to a server, all tabs together: two streams a page, none while it is hidden.
const STREAMS = 2;
const OVER = { done: "done", failed: "failed", cancelled: "cancelled" };
const strip = document.querySelector("[data-strip]");
const RENEWED = 5000; // milliseconds
let renewal = 0;
const LEAVING = 10_000; // milliseconds
let isLeaving = false;
const followed = new Map(); // job -> the places that show it
function watch(root) {
  for (const place of $$("[data-job]", root)) {
    const id = place.dataset.job;
    followed.set(id, [...(followed.get(id) ?? []), place]);
  }
}
watch(document);
const streams = new Map();
function follow() {
  if (document.hidden) {
    for (const source of streams.values()) source.close();
    streams.clear();
    return;
  }
  for (const id of followed.keys()) {
    if (streams.size >= STREAMS) return;
    if (streams.has(id)) continue;
    const source = new EventSource(`/api/v1/jobs/${encodeURIComponent(id)}/events`);
    streams.set(id, source);
    const take = (event) => {
      const job = JSON.parse(event.data);
      const places = followed.get(id) ?? [];
      if (job.state in OVER) {
        source.close();
        streams.delete(id);
        followed.delete(id);
        follow();
      }
      for (const place of places) showJob(place, job);
    };
    source.onmessage = take;
    source.addEventListener("job", take);
  }
}
function showJob(place, job) {
  const bar = place.querySelector("progress");
  if (bar && job.total) {
    bar.max = job.total;
    bar.value = job.done;
  } else if (bar && job.state === "running") {
    bar.removeAttribute("value");
  }
  const share = job.total ? `, ${job.done} of ${job.total}` : "";
  const remark = job.message ? `: ${job.message}` : "";
  const running = `${job.label || "starts"}${share}${remark}`;
  const text = { queued: "waits for its turn", running, ...OVER }[job.state];
  for (const part of $$("[data-job-message]", place)) {
    if (part.textContent !== text) part.textContent = text;
  }
  if (!(job.state in OVER)) return;
  if (bar) bar.hidden = true;
  if (strip.contains(place)) renew(); // what waited is at work now
  const then = place.dataset.jobThen;
  // A button that was pressed brings a page of its own: a reload now would lose what that page says.
  if (isLeaving) return;
  // A form that somebody fills in is not reloaded away.
  if (then === "reload" && !isTyping()) location.reload();
  else if (then === "reload") offerReload(place, job);
  else if (then?.startsWith("/")) location.assign(then);
}
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  isLeaving = true;
  setTimeout(() => { isLeaving = false; }, LEAVING); // what was sent may end in a file, not in a page
});
document.addEventListener("visibilitychange", follow);
follow();

// The strip on top shows the job at work, also one that was asked for after this page was loaded. It is asked
// for now and then, by a page that somebody looks at.
async function renew() {
  clearTimeout(renewal);
  if (document.hidden) return;
  try {
    const answer = await fetch(strip.dataset.strip, { signal: AbortSignal.timeout(RENEWED) });
    if (answer.ok) showStrip(await answer.text());
  } catch {
    // The server is being started again: the next time finds it.
  }
  clearTimeout(renewal); // another one may have been faster
  renewal = setTimeout(renew, RENEWED);
}
function showStrip(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const next = fresh.content.querySelector("[data-strip-is]");
  const now = strip.querySelector("[data-strip-is]");
  // A job that is over stays until another one is at work: whoever looks up later sees that it is done.
  if (!next) now?.querySelector("[data-strip-waits]")?.remove();
  if (!next || next.dataset.stripIs === now?.dataset.stripIs) return;
  if (now) {
    for (const [id, places] of followed) {
      const left = places.filter((place) => !now.contains(place));
      if (left.length) followed.set(id, left);
      else followed.delete(id);
      if (!left.length) {
        streams.get(id)?.close();
        streams.delete(id);
      }
    }
  }
  strip.replaceChildren(next);
  watch(strip);
  follow();
}
document.addEventListener("visibilitychange", renew);
renewal = setTimeout(renew, RENEWED);
function isTyping() {
  return $$("form[data-dirty]").length > 0;
}
function offerReload(place, job) {
  if (place.querySelector("[data-reload]")) return;
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.reload = "";
  button.textContent = job.state === "done" ? "Show the result" : "Show what happened";
  button.addEventListener("click", () => location.reload());
  place.append(button);
}
document.addEventListener("input", (event) => {
  const form = event.target.closest("main form");
  if (form) form.dataset.dirty = "";
});

// -- files: drop them, several at once ------------------------------------------------------------
for (const form of $$("form[data-drop]")) {
  const input = form.querySelector('input[type="file"]');
  const state = form.querySelector("[data-drop-state]");
  const send = () => {
    const n = input.files.length;
    if (!n) return;
    if (state) state.textContent = n === 1 ? `Reading ${input.files[0].name} …` : `Reading ${n} files …`;
    form.requestSubmit();
  };
  input.addEventListener("change", send);
  const inside = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  // The whole page is the target: nobody aims at a box.
  document.addEventListener("dragover", (event) => {
    if (!inside(event)) return;
    event.preventDefault();
    form.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) form.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!inside(event)) return;
    event.preventDefault();
    form.classList.remove("over");
    input.files = event.dataTransfer.files;
    send();
  });
}

// -- fields that stand or fall with another: the value of a parent variable -----------------------
for (const field of $$("[data-when]")) {
  const wanted = JSON.parse(field.dataset.when);
  const parent = field.closest("form").elements[field.dataset.whenField];
  if (!parent) continue;
  const show = () => {
    const off = field.closest("form").elements[field.dataset.whenField].disabled;
    field.hidden = off || !wanted.includes(parent.value);
    for (const input of $$("input, select", field)) input.disabled = field.hidden;
  };
  parent.addEventListener("input", show);
  show();
}

// -- one click, one request -----------------------------------------------------------------------
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method === "dialog") return;
  if (event.target.dataset.sent !== undefined) {
    event.preventDefault();
    return;
  }
  event.target.dataset.sent = "";
  delete event.target.dataset.dirty;
});
addEventListener("pageshow", () => {
  for (const form of $$("form[data-sent]")) delete form.dataset.sent;
});
addEventListener("beforeunload", (event) => {
  if ($$("form[data-guard][data-dirty]").length) event.preventDefault();
});

// -- keys -----------------------------------------------------------------------------------------
// An element with data-key is pressed by that key; one with data-card-key only in the card at hand.
const cards = $$("[data-card]");
let current = -1;
const KEYS_OFF = "ohmloop-keys-off";
const dialog = document.getElementById("keys");
const keysOn = document.getElementById("keys-on");
keysOn.checked = localStorage.getItem(KEYS_OFF) === null;
keysOn.addEventListener("change", () => {
  if (keysOn.checked) localStorage.removeItem(KEYS_OFF);
  else localStorage.setItem(KEYS_OFF, "1");
});

function choose(index) {
  if (!cards.length) return;
  current = Math.max(0, Math.min(cards.length - 1, index));
  cards.forEach((card, k) => card.classList.toggle("current", k === current));
  cards[current].focus();
}
cards.forEach((card, k) => {
  card.tabIndex = -1;
  card.addEventListener("focusin", () => {
    current = k;
    cards.forEach((other) => other.classList.toggle("current", other === card));
  });
});

function press(element) {
  if (element.tagName === "SUMMARY") {
    const details = element.parentElement;
    details.open = !details.open;
    const first = details.querySelector("input:not([type=hidden]), select, textarea");
    if (details.open && first) first.focus();
    else element.focus();
  } else if (["INPUT", "SELECT", "TEXTAREA"].includes(element.tagName)) element.focus();
  else element.click();
}

function showHelp() {
  const rows = [["?", "this list"]];
  if (cards.length) rows.push(["j", "next card"], ["k", "card before"]);
  const known = new Set();
  for (const element of $$("[data-key], [data-card-key]")) {
    const key = element.dataset.key || element.dataset.cardKey;
    if (known.has(key)) continue;
    known.add(key);
    const what = element.dataset.keyLabel || element.textContent.trim();
    rows.push([key, element.dataset.cardKey ? `${what} (the card at hand)` : what]);
  }
  const body = dialog.querySelector("tbody");
  body.replaceChildren(
    ...rows.map(([key, what]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      const name = document.createElement("kbd");
      const cell = document.createElement("td");
      head.scope = "row";
      name.textContent = key;
      cell.textContent = what;
      head.append(name);
      row.append(head, cell);
      return row;
    }),
  );
  dialog.showModal();
}
for (const button of $$("[data-help]")) {
  button.hidden = false;
  button.addEventListener("click", showHelp);
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || dialog.open) return;
  const target = event.target;
  if (event.key === "Escape" && target.closest("[data-card] details")) {
    const details = target.closest("details");
    details.open = false;
    details.querySelector("summary").focus();
    return;
  }
  if (target.isContentEditable || ["SELECT", "TEXTAREA"].includes(target.tagName)) return;
  if (target.tagName === "INPUT" && !["checkbox", "radio", "button"].includes(target.type)) return;
  if (event.key === "?") {
    event.preventDefault();
    showHelp();
    return;
  }
  if (!keysOn.checked) return;
  const usable = (element) => element && !element.disabled && element.offsetParent !== null;
  if (event.key === "j" && cards.length) choose(current + 1);
  else if (event.key === "k" && cards.length) choose(current - 1);
  else if (/^[a-z/+]$/i.test(event.key)) {
    const own =
      current >= 0 && cards[current].querySelector(`[data-card-key="${CSS.escape(event.key)}"]`);
    const any = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    const found = usable(own) ? own : any;
    if (!usable(found)) return;
    press(found);
  } else return;
  event.preventDefault();
});

// -- where to look: the line that an error names, the card that comes next ------------------------
for (const area of $$("textarea[data-line]")) {
  const line = Number(area.dataset.line);
  const lines = area.value.split("\n");
  const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  area.focus();
  area.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  area.scrollTop = Math.max(0, (area.scrollHeight / lines.length) * (line - 6));
}
{
  const wanted = cards.findIndex((card) => `#${card.id}` === location.hash);
  if (wanted >= 0) choose(wanted);
}
