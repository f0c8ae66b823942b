// Lets Tab leave a list at once. Gradio opens a list a moment after each key; after Tab, that is when another field has
// the focus, so the list stayed open over the form. And Chromium stops at lines that scroll before it goes on.
(() => {
  const KEYS = ['Tab', 'Shift', 'Control', 'Alt', 'Meta'];  // they leave the list, or do nothing in it
  window.addEventListener('keydown', (event) => {
    if (!KEYS.includes(event.key) || !event.target.matches?.('input[role=combobox]')) return;
    event.stopPropagation();
    document.getElementById(event.target.getAttribute('aria-controls'))?.setAttribute('tabindex', '-1');
  }, true);
})();
