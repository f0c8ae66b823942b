// Ctrl+Enter generates.
document.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    const button = document.querySelector('button#ld-generate');
    if (button) { event.preventDefault(); button.click(); }
  }
});
