"""Contains the page's few scripts, for tasks that only the browser can do."""

from __future__ import annotations

from modules.core.sizes import MAX_SIZE
from modules.images.open import MOST_PIXELS

UPLOAD_MEGABYTES = 64

CTRL_ENTER = """
document.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    const button = document.querySelector('button#ld-generate');
    if (button) { event.preventDefault(); button.click(); }
  }
});
"""
# The mask editor's textures have at most about MAX_SIZE pixels per side; larger pictures fail silently. This script
# checks a chosen or dropped picture before the editor gets it; the server checks uploads again.
CHECK_PICTURES = """
(() => {
  const say = (text) => {
    const box = document.querySelector('#ld-upload-message');
    if (box) box.innerHTML = text ? '<div class="ld-message ld-error" role="alert"></div>' : '';
    if (box && text) box.firstChild.textContent = text;
  };
  const sizeOf = (file) => new Promise((done) => {
    const url = URL.createObjectURL(file), image = new Image();
    const end = (size) => { URL.revokeObjectURL(url); done(size); };
    image.onload = () => end([image.naturalWidth, image.naturalHeight]);
    image.onerror = () => end(null);
    image.src = url;
  });
  const complaint = async (file) => {
    if (file.size > MEGABYTES * 1024 * 1024)
      return `${file.name} is ${Math.ceil(file.size / 1048576)} MB large; at most MEGABYTES MB are allowed.`;
    const size = await sizeOf(file);
    if (!size) return `${file.name} is not a picture file that can be read; use PNG, JPEG, WebP, GIF or BMP.`;
    if (Math.max(...size) > LONGEST || size[0] * size[1] > MOST_PIXELS)
      return `${file.name} is ${size[0]}x${size[1]}; at most MEGAPIXELS megapixels, LONGEST a side, are allowed.`;
    return '';
  };
  const checked = new WeakSet();
  document.addEventListener('change', async (event) => {
    const input = event.target;
    if (input.type !== 'file' || !input.files.length || !input.closest('#ld-form') || checked.delete(event)) return;
    event.stopImmediatePropagation();
    const words = await complaint(input.files[0]);
    say(words);
    if (words) { input.value = ''; return; }
    const again = new Event('change', {bubbles: true});
    checked.add(again);
    input.dispatchEvent(again);
  }, true);
  document.addEventListener('drop', (event) => {
    const input = event.target.closest?.('#ld-form .block')?.querySelector('input[type=file]');
    if (!input || !event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  }, true);
  document.addEventListener('click', (event) => { if (event.target.closest?.('#ld-generate')) say(''); }, true);
})();
"""


def head() -> str:
    """Returns the scripts for the page's <head>."""
    check = CHECK_PICTURES.replace("MOST_PIXELS", str(MOST_PIXELS)).replace("MEGAPIXELS", str(MOST_PIXELS // 10**6))
    check = check.replace("MEGABYTES", str(UPLOAD_MEGABYTES)).replace("LONGEST", str(MAX_SIZE))
    return f"<script>{CTRL_ENTER}{check}</script>"


# Each browser tab remembers its last request across reloads.
REMEMBER_TASK = "(task) => { sessionStorage.setItem('ld-task', task || ''); }"
RECALL_TASK = "() => [sessionStorage.getItem('ld-task') || '']"
# `text` contains the page's initial values and the last used ones, in the order of the fields.
FILL_UNTOUCHED = """(text, ...shown) => {
  if (!text) return shown;
  const {built, now} = JSON.parse(text);
  return shown.map((value, index) => (value ?? null) === built[index] ? now[index] : value);
}"""
# New values of the form take two frames to appear on screen.
MARK_READY = """() => {
  requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset.ldReady = 'yes'; }));
}"""
SHOW_STAGE = """() => {
  if (window.innerWidth < 900) document.querySelector('#ld-stage').scrollIntoView({behavior: 'smooth'});
}"""
# In a narrow window the message may be far from the button and out of view.
SHOW_ERROR = """() => {
  const show = () => [...document.querySelectorAll('#ld-message .ld-error, #ld-compare-message .ld-error')]
    .find((box) => box.offsetParent)?.scrollIntoView({behavior: 'smooth', block: 'center'});
  if (window.innerWidth < 900) requestAnimationFrame(() => requestAnimationFrame(show));
}"""
