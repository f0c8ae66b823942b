// Scrolls to a message that appears on a page that is open already.
window.addEventListener('ld-ready', () => {
  const show = (message) => setTimeout(() => message.scrollIntoView({block: 'nearest'}), 50);
  new MutationObserver((changes) => {
    const added = changes.flatMap((change) => [...change.addedNodes]).filter((node) => node.closest);
    const place = added.map((node) => node.closest('.ld-message-place')).find(Boolean);
    const message = place?.querySelector('.ld-message');
    if (message) requestAnimationFrame(() => requestAnimationFrame(() => show(message)));  // it takes two frames
  }).observe(document.querySelector('#ld-body'), {childList: true, subtree: true});
}, {once: true});
