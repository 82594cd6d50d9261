"use strict";
// Pages work without this script; it adds the theme, local times, and the state of the live connection.
(() => {
  const root = document.documentElement;
  const csrf = document.querySelector('meta[name="csrf"]')?.content ?? "";

  // htmx does not inherit headers from the body, so each request gets the token here.
  document.addEventListener("htmx:config:request", (event) => {
    const request = event.detail.ctx.request;
    if (request.method !== "GET") request.headers["X-CSRF-Token"] = csrf;
  });

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function showTheme() {
    const button = document.getElementById("theme");
    if (!button) return;
    button.hidden = false;
    button.setAttribute("aria-label", isDark() ? "Use the light theme" : "Use the dark theme");
    root.dispatchEvent(new CustomEvent("themechange"));
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#theme")) {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it holds for this page */ }
      showTheme();
    }
    event.target.closest?.("[data-dismiss]")?.closest(".notice, .keep")?.remove();
    if (event.target.closest?.("[data-copy]")) copy(event.target.closest("[data-copy]"));
  });

  async function copy(button) {
    const text = document.getElementById(button.dataset.copy) ?? button.parentElement.querySelector("pre");
    try { await navigator.clipboard.writeText(text.textContent); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(text); }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  addEventListener("storage", (event) => {
    if (event.key !== "theme") return;
    if (event.newValue) root.dataset.theme = event.newValue;
    else delete root.dataset.theme;
    showTheme();
  });

  const moment = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  function localize(within) {
    for (const element of within.querySelectorAll?.("time[datetime]:not([title])") ?? []) {
      const date = new Date(element.dateTime);
      if (Number.isNaN(date.valueOf())) continue;
      element.title = element.textContent;
      element.textContent = moment.format(date);
    }
  }
  function duration(seconds) {
    const minutes = Math.round(seconds / 60);
    if (seconds < 120) return `${Math.round(seconds)} s`;
    return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }
  function count() {
    for (const element of document.querySelectorAll("[data-since]")) {
      element.textContent = duration(Math.max(0, (Date.now() - Date.parse(element.dataset.since)) / 1000));
    }
    for (const element of document.querySelectorAll("[data-until]")) {
      const seconds = (Date.parse(element.dataset.until) - Date.now()) / 1000;
      element.textContent = seconds > 0 ? `in ${duration(seconds)}` : "any moment now";
      element.classList.toggle("warn-ink", seconds < 3600);
    }
  }
  setInterval(count, 1000);
  document.addEventListener("htmx:after:swap", () => { localize(document); count(); });

  // The live connection: a feed that fails at the server is said so by its heartbeats, and one that has gone silent is opened anew.
  const SILENCE = 40_000, clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
  let connection = null, heard = 0, current = new Date();
  function live(is) {
    const words = is ? "live" : `reconnecting, last current at ${clock.format(current)}`;
    for (const sign of document.querySelectorAll("[data-live]")) {
      sign.dataset.live = is ? "on" : "off";
      if (sign.textContent !== words) sign.textContent = words;
    }
  }
  document.addEventListener("htmx:sse:after:connection", (event) => {
    connection = event.detail.connection;
    heard = Date.now(); current = new Date();
    live(true);
  });
  document.addEventListener("htmx:sse:before:message", () => { heard = Date.now(); current = new Date(); });
  document.addEventListener("feed", (event) => {
    const { failing, at } = JSON.parse(event.detail.data);
    current = new Date(at);
    live(!failing);
  });
  document.addEventListener("htmx:sse:error", () => live(false));
  document.addEventListener("htmx:error", (event) => { if (event.target.hasAttribute?.("hx-sse:connect")) live(false); });
  document.addEventListener("htmx:sse:close", (event) => { if (event.detail.reason !== "removed") live(false); });
  setInterval(() => {
    if (document.hidden || !connection?.reader || !document.querySelector("[data-live]") || Date.now() - heard < SILENCE) return;
    live(false);
    connection.reader.cancel(); // it connects again
  }, 1000);

  addEventListener("DOMContentLoaded", () => { showTheme(); localize(document); count(); });
})();
