// Scrolls to a message that appears on a page that is open already, and to the panel that "Repaint a part…" opens.
window.addEventListener('ld-ready', () => {
  const findIn = (node) => node.closest('.ld-message-place')?.querySelector('.ld-message')
    ?? (node.id === 'ld-repaint' ? node : node.querySelector('#ld-repaint'));
  const show = (part) => setTimeout(() => part.scrollIntoView({block: 'nearest'}), 50);
  new MutationObserver((changes) => {
    const added = changes.flatMap((change) => [...change.addedNodes]).filter((node) => node.closest);
    const found = added.map(findIn).find(Boolean);
    if (found) requestAnimationFrame(() => requestAnimationFrame(() => show(found)));  // it takes two frames
  }).observe(document.querySelector('#ld-body'), {childList: true, subtree: true});
}, {once: true});
