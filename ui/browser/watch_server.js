// Asks for a small file every few seconds, since nothing else tells a page that the server has ended.
(() => {
  const say = (text) => {
    const line = document.querySelector('#ld-stage .ld-words');
    if (line) line.textContent = text;
    document.querySelector('#ld-answer')?.replaceChildren();  // it would cover these words
  };
  let lost = false;
  setInterval(async () => {
    try {
      await fetch('robots.txt', {cache: 'no-store'});
      if (lost) say('The server is back: reload this page.');
      lost = false;
    } catch {
      lost = true;
      say('The server has stopped: start it again, then reload this page.');
    }
  }, 3000);
})();
