"use strict";
// The page works without this script, a button at a time. With it every change is kept as it is typed, files can be
// dropped, and the card follows. What the server did not take stays here, through a reload, until it does.
(() => {
  const form = document.getElementById("draft");
  if (!form) return;
  const base = form.dataset.base, kept = document.getElementById("kept");
  const csrf = document.querySelector('meta[name="csrf"]').content;
  const unsent = new Map(JSON.parse(sessionStorage.getItem(base) ?? "[]"));
  let typing = 0, polling = 0, asked = 0, sending = null;

  function say(words) { kept.textContent = words; }

  function notice(words) {
    const box = document.createElement("div"), text = document.createElement("div"), close = document.createElement("button");
    box.className = "notice bad";
    box.setAttribute("role", "alert");
    for (const line of words.split("\n")) text.appendChild(document.createElement("p")).textContent = line;
    Object.assign(close, { type: "button", className: "quiet", textContent: "Dismiss" });
    close.dataset.dismiss = "";
    box.append(text, close);
    document.getElementById("notices").replaceChildren(box);
  }

  // Boxes of one name are one value, a line each.
  function valueOf(name) {
    const elements = [...form.elements].filter((element) => element.name === name && element.type !== "hidden");
    if (elements[0]?.type === "radio") return elements.find((element) => element.checked)?.value ?? "";
    if (elements[0]?.type === "checkbox") return elements.filter((element) => element.checked).map((element) => element.value).join("\n");
    return elements[0]?.value ?? "";
  }

  function remember(name) {
    unsent.set(name, valueOf(name));
    sessionStorage.setItem(base, JSON.stringify([...unsent]));
  }

  // What was typed and not taken yet is shown in place of what the server has.
  function restore() {
    for (const [name, value] of unsent) for (const element of form.elements) {
      if (element.name !== name || element.type === "hidden") continue;
      if (element.type === "radio") element.checked = element.value === value;
      else if (element.type === "checkbox") element.checked = value.split("\n").includes(element.value);
      else element.value = value;
    }
  }

  function replace(id, html) {
    const place = document.getElementById(id);
    if (!place || place.dataset.html === html) return;
    const focused = document.activeElement?.id, open = new Set([...place.querySelectorAll("details[open][id]")].map((one) => one.id));
    const used = place.querySelectorAll("input[type='file'], progress, [name^='place.']"); // perhaps by an open dialog, right now
    place.innerHTML = html;
    place.dataset.html = html;
    for (const one of used) document.getElementById(one.id)?.replaceWith(one);
    for (const one of place.querySelectorAll("details[id]")) if (open.has(one.id)) one.open = true;
    restore();
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus();
  }

  function show(state) {
    if (state.go) { location.assign(state.go); return; }
    if (state.parts.fields) replace("part-fields", state.parts.fields);
    for (const [part, html] of Object.entries(state.parts)) if (part !== "fields") replace(`part-${part}`, html);
    for (const [id, sentences] of Object.entries(state.problems)) {
      const place = document.getElementById(`${id}-problem`);
      if (place && place.textContent.trim() !== sentences.join("; ")) {
        place.textContent = sentences.join("; ");
        if (sentences.length && place.closest("details")) place.closest("details").open = true;
      }
      document.getElementById(id)?.toggleAttribute("aria-invalid", sentences.length > 0);
      if (sentences.length) document.getElementById(id)?.setAttribute("aria-invalid", "true");
    }
    for (const [id, value] of Object.entries(state.resolved)) {
      const place = document.getElementById(`${id}-resolved`);
      if (place) place.textContent = value;
    }
    const spoken = document.getElementById("spoken");
    if (spoken.textContent !== state.status) spoken.textContent = state.status;
    clearTimeout(polling);
    if (state.pending) polling = setTimeout(look, 700);
  }

  async function answerOf(address, options) {
    const answer = await fetch(address, { ...options, headers: { Accept: "application/json", "X-CSRF-Token": csrf, ...options?.headers } });
    const type = answer.headers.get("content-type") ?? "";
    if (!type.startsWith("application/json")) throw new Error(`the server refused it (${answer.status}); reload the page`);
    return answer.json();
  }

  // Until nothing is on its way to the server any more, kept or refused.
  async function sent() { while (sending) await sending.catch(() => {}); }

  // Answers may overtake one another: only the one that was asked for last is shown.
  async function look() {
    await sent();
    const number = ++asked;
    try {
      const state = await answerOf(`${base}/state`);
      if (number === asked) show(state);
    } catch { if (number === asked) polling = setTimeout(look, 3000); }
  }

  // Fields go one request after another; a later text of a field replaces the earlier one.
  async function send(act, more) {
    clearTimeout(typing);
    await sent();
    const fields = new Map(unsent);
    const body = new URLSearchParams([...fields, ...(act ? [["act", act]] : []), ...Object.entries(more ?? {})]);
    say(act ? "Working …" : "Saving …");
    sending = answerOf(`${base}/set`, { method: "POST", body });
    try {
      const state = await sending;
      if (state.unsaved) throw new Error(state.refused);
      for (const [name, value] of fields) if (unsent.get(name) === value) unsent.delete(name);
      sessionStorage.setItem(base, JSON.stringify([...unsent]));
      sending = null;
      asked += 1;
      say("Everything is kept");
      if (state.refused) { notice(state.refused); look(); } else show(state);
      return !state.refused;
    } catch (error) {
      sending = null;
      say("Not kept yet; what you typed stays here");
      notice(error instanceof TypeError ? "the server does not answer; what you typed stays here and is sent when it is back" : error.message);
      typing = setTimeout(() => send(), 4000);
      return false;
    }
  }

  form.addEventListener("input", (event) => {
    if (!event.target.name || event.target.name === "confirm" || event.target.name.startsWith("place.")) return;
    remember(event.target.name);
    clearTimeout(typing);
    typing = setTimeout(() => send(), event.target.type === "text" || event.target.tagName === "TEXTAREA" ? 400 : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault()); // by Enter: it is kept already
  form.addEventListener("click", async (event) => {
    const button = event.target.closest("button[name='act']");
    if (!button || button.disabled) return;
    event.preventDefault();
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    const beside = [...form.elements].filter((element) => element.name?.startsWith("place.") || (element.name === "confirm" && element.checked));
    const isTaken = await send(button.value, Object.fromEntries(beside.map((element) => [element.name, element.value])));
    if (isTaken) for (const one of beside) if (one.name !== "confirm") one.value = "";
    button.disabled = false;
    button.removeAttribute("aria-busy");
  });

  // The first bytes go ahead, so that a file of another kind is refused before all of it has been sent.
  function upload(file, role, bar) {
    return new Promise((done, fail) => {
      const request = new XMLHttpRequest();
      request.open("POST", `${base}/upload/${role}?${new URLSearchParams({ name: file.name, of: file.size })}`);
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("X-CSRF-Token", csrf);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.onprogress = (event) => { bar.value = event.loaded / Math.max(event.total, 1); };
      request.onload = () => { try { done(JSON.parse(request.responseText)); } catch { fail(new Error(`the server refused the file (${request.status}); reload the page`)); } };
      request.onerror = () => fail(new Error(`${file.name}: the connection broke before all of it was sent; drop it again`));
      request.send(file);
    });
  }

  async function take(files, role) {
    const bar = document.getElementById(`progress-${role}`), refused = [];
    for (const file of files) {
      bar.hidden = false;
      bar.value = 0;
      say(`Sending ${file.name} …`);
      try {
        const head = await answerOf(`${base}/upload/${role}/head?${new URLSearchParams({ name: file.name, of: file.size })}`, {
          method: "POST", body: file.slice(0, 65536), headers: { "Content-Type": "application/octet-stream" },
        });
        const answer = head.refused ? head : await upload(file, role, bar);
        if (answer.refused) refused.push(answer.refused);
      } catch (error) { refused.push(error.message); }
    }
    bar.hidden = true;
    say(refused.length ? "" : "Everything is kept");
    if (refused.length) notice(refused.join("\n"));
    look();
  }

  form.addEventListener("change", (event) => {
    if (event.target.type === "file" && event.target.files.length) take([...event.target.files], event.target.closest(".drop").dataset.role);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
    const target = event.target.closest?.(".drop");
    for (const one of form.querySelectorAll(".drop")) one.classList.toggle("over", kind === "dragover" && one === target);
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // beside the place for it too: the browser would leave the page and open the file
    if (kind === "drop" && target) take([...event.dataTransfer.files], target.dataset.role);
  });

  restore();
  if (unsent.size) send();
  else if (form.dataset.pending) look();
})();
