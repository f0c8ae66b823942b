// Live: draws while one types. A change of a prompt asks for a picture, which starts when the last one has ended, always of
// the newest words.
(() => {
  const MOST_STEPS = 8, REST = 150, PATIENCE = 500;  // milliseconds without a key, and with many keys
  const PROMPTS = '#ld-prompt textarea, #ld-negative-prompt textarea';
  const find = (selector) => document.querySelector(selector);
  let first = 0, latest = 0, watch = null;

  const say = (words) => {
    let line = find('#ld-live-words');
    if (!line && words) {
      line = Object.assign(document.createElement('p'), {id: 'ld-live-words', role: 'status'});
      find('#ld-go').after(line);
    }
    if (line) line.textContent = words;
  };

  const stop = () => { clearInterval(watch); watch = null; };
  const look = () => {
    const button = find('button#ld-generate'), now = performance.now();
    const isTyping = now - latest < REST && now - first < PATIENCE;
    if (isTyping || !button || button.ariaDisabled === 'true') return;
    stop();
    button.click();
  };

  document.addEventListener('input', (event) => {
    if (!event.target.matches?.(`${PROMPTS}, #ld-live input, #ld-number-steps input`)) return;
    const isOn = find('#ld-live input')?.checked;
    const isSlow = isOn && Number(find('#ld-number-steps input')?.value) > MOST_STEPS;
    say(isSlow ? `Live draws with at most ${MOST_STEPS} steps. Set Steps, or use a few-step model.` : '');
    if (!isOn || isSlow) return stop();
    latest = performance.now();
    if (watch) return;
    first = latest;
    watch = setInterval(look, 50);
  });
})();
