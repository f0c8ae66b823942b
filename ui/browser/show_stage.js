// On a narrow page, Generate and an example show what they change: the buttons, the progress and the picture.
document.addEventListener('click', (event) => {
  if (innerWidth > 900 || !event.target.closest?.('#ld-generate, #ld-examples button')) return;
  const behavior = matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth';
  document.querySelector('#ld-go').scrollIntoView({behavior, block: 'start'});
});
