"use strict";
// The server renders questions, answers and votes; here are what comes by the word, the shortcut, and the notes beside the fields.
(() => {
  const form = document.getElementById("playground");
  if (!form) return;
  const part = (id) => document.getElementById(id);

  document.addEventListener("said", (event) => { // named by the stream of answers
    const { side, text, thought } = JSON.parse(event.detail.data);
    if (text !== undefined) { part(`said-${side}`).append(text); return; }
    const box = part(`thought-${side}`);
    box.hidden = false;
    box.lastElementChild.append(thought);
  });
  form.addEventListener("keydown", (event) => {
    if (event.target.id === "question" && event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); part("ask")?.click(); }
  });

  function showChanges() {
    const fields = [...form.querySelectorAll("[data-usual]")].filter((field) => field.value !== field.dataset.usual);
    const changed = fields.map((field) => `${field.name} ${field.dataset.usual} → ${field.value || "none"}`);
    const system = form.elements.system, isTrained = system.value.trim() === system.dataset.trained.trim();
    if (form.elements.tools.value.trim() !== form.elements.tools.dataset.trained.trim()) changed.push("other tools");
    part("changes").textContent = changed.length ? `Changed: ${changed.join(", ")}.` : "As in the run's own comparison.";
    const note = part("system-note");
    note.textContent = isTrained
      ? (system.dataset.trained ? "From the training rows; both models get it." : "The training rows have none in common.")
      : "Not that of the training rows: the tuned model may answer at random.";
    note.classList.toggle("warn-ink", !isTrained && Boolean(system.dataset.trained));
    const local = form.querySelector("[data-for-source]");
    if (local) local.hidden = form.elements.source.value !== "local";
    form.elements.blind.disabled = form.elements.models.value !== "both";
  }
  form.addEventListener("input", showChanges);
  showChanges();
})();
