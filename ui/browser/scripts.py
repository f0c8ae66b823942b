"""The short scripts of single events, for tasks that only the browser can do."""

from __future__ import annotations

# Each browser tab remembers its last request and the form of it across reloads.
REMEMBER_TASK = "(task) => { sessionStorage.setItem('ld-task', task || ''); }"
RECALL_TASK = "() => [sessionStorage.getItem('ld-task') || '']"
REMEMBER_FORM = "(form) => { sessionStorage.setItem('ld-form', form || ''); }"
RECALL_FORM = "() => [sessionStorage.getItem('ld-form') || '']"
# `text` contains the page's initial values and the last used ones, in the order of the fields. Gradio leaves a field
# alone for which it gets undefined. Empty fields are told so, or else Gradio makes 0 of a number in a folded section.
FILL_UNTOUCHED = """(text, ...shown) => {
  if (!text) return [];
  const {built, now} = JSON.parse(text);
  const same = (one, other) => JSON.stringify(one ?? null) === JSON.stringify(other);
  const isToTell = (value, index) =>
    same(value, built[index]) && (now[index] === null || !same(value, now[index]));
  return shown.map((value, index) => isToTell(value, index) ? now[index] : undefined);
}"""
# New values of the form take two frames to appear on screen.
MARK_READY = """() => {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    document.body.dataset.ldReady = 'yes';
    window.dispatchEvent(new Event('ld-ready'));
  }));
}"""
# The cards of models mark the chosen checkpoint, and the LoRAs that do not fit it.
TELL_CHECKPOINT = "(name) => { window.dispatchEvent(new CustomEvent('ld-checkpoint', {detail: name || ''})); }"
