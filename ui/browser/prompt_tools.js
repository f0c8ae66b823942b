// Counts the prompts' tokens once typing pauses, and inserts clicked wildcards at the cursor.
(() => {
  const FIELDS = '#ld-prompt textarea, #ld-negative-prompt textarea';
  let waiting = null, last = null;
  window.ldCountSoon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => document.querySelector('#ld-count')?.click(), 300);
  };
  document.addEventListener('focusin', (event) => { if (event.target.matches?.(FIELDS)) last = event.target; });
  document.addEventListener('click', (event) => {
    const word = event.target.closest?.('.ld-insert');
    if (!word) return;
    const field = last?.isConnected ? last : document.querySelector(FIELDS);
    field.focus();
    document.execCommand('insertText', false, word.textContent);
  });
})();
