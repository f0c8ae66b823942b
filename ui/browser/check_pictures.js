// The mask editor's textures have at most about MAX_SIZE pixels per side; larger pictures fail silently. This script
// checks a chosen or dropped picture before the editor gets it; the server checks uploads again.
(() => {
  const hush = () => document.querySelectorAll('.ld-upload-message').forEach((box) => box.remove());
  const say = (input, text) => { // above the field, where the eyes are; a row of the form stays as it is
    const field = input.closest('#ld-form .row') ?? input.closest('.block'), box = document.createElement('div');
    box.className = 'ld-upload-message ld-message ld-error';
    box.setAttribute('role', 'alert');
    box.textContent = text;
    field.before(box);
    box.scrollIntoView({block: 'nearest'});
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
    hush();
    if (words) { say(input, words); input.value = ''; return; }
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
  document.addEventListener('click', (event) => { if (event.target.closest?.('#ld-generate')) hush(); }, true);
})();
