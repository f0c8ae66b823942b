// Takes a picture that is dragged from the results to a picture field: fetches its file, with its metadata, and hands
// it to the field as an upload.
(() => {
  const KIND = 'application/x-ld-picture';
  const blockAt = (event) => event.dataTransfer.types.includes(KIND) && event.target.closest?.('#ld-form .block');
  const inputOf = async (block) => {
    block.querySelector('button[aria-label="Remove Image"], button[aria-label="Clear"]')?.click();
    for (let frame = 0; frame < 60; frame++) { // an emptied field takes a few frames to offer its input
      const input = block.querySelector('input[type=file]');
      if (input) return input;
      await new Promise(requestAnimationFrame);
    }
    return null;
  };
  window.addEventListener('dragstart', (event) => {
    const image = event.target.closest?.('#ld-results img');
    if (image) event.dataTransfer.setData(KIND, image.currentSrc || image.src);
  }, true);
  window.addEventListener('dragover', (event) => { if (blockAt(event)) event.preventDefault(); }, true);
  window.addEventListener('drop', async (event) => {
    const block = blockAt(event), source = event.dataTransfer.getData(KIND);
    if (!block) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (new URL(source, location.href).origin !== location.origin) return; // a preview has no file
    const answer = await fetch(source), input = await inputOf(block);
    if (!answer.ok || !input) return;
    const file = await answer.blob(), name = decodeURIComponent(source.split('/').pop());
    const files = new DataTransfer();
    files.items.add(new File([file], name, {type: file.type}));
    input.files = files.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  }, true);
})();
