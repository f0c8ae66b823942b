// Answers a click on Generate at once, and loses none. By itself, Gradio drops a click until it has heard of the last
// request's end, up to 0.3 s after "Done", and sends the form without what the server is about to change in it.
window.ldGenerate = (() => {
  const CHANGES = /\/gradio_api\/(run|upload)\b/;  // quick answers, and pictures on their way to the server
  const PATIENCE = 30000;
  const button = () => document.querySelector('button#ld-generate');
  const stage = () => document.querySelector('#ld-stage');
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  // idle -> asked -> running -> ending (its last words are there, but Gradio does not know yet) -> idle
  let state = 'idle', onTheWay = 0, isWanted = false, isOurs = false, watch = null;

  const send = window.fetch;
  window.fetch = (...request) => {
    const answer = send(...request);
    if (!CHANGES.test(request[0]?.url ?? request[0])) return answer;
    onTheWay++;
    const end = () => setTimeout(() => onTheWay--, 20);  // an answer may ask for another one
    answer.then((got) => got.clone().arrayBuffer()).then(end, end);
    return answer;
  };

  // Our own line covers the server's words, because Gradio does not write words again that it has written before.
  const say = (words) => {
    let line = document.querySelector('#ld-answer');
    if (!line && words) {
      line = Object.assign(document.createElement('p'), {id: 'ld-answer', role: 'status'});
      stage().append(line);
    }
    if (line) line.textContent = words;
  };
  const enter = (name) => {
    state = name;
    button().ariaDisabled = name === 'asked' || name === 'running' ? 'true' : null;
    say(name === 'asked' ? 'Starting…' : '');
  };

  // Words of the server without a bar are the last ones of a request.
  const follow = () => {
    const words = () => stage().querySelector('.ld-stage');
    const old = words(), text = old.textContent;
    watch = new MutationObserver(() => {
      if (state === 'asked' && words() === old && old.textContent === text) return;
      const next = stage().querySelector('[role=progressbar]') ? 'running' : 'ending';
      if (next !== state) enter(next);
    });
    watch.observe(stage(), {childList: true, subtree: true, characterData: true});
  };

  const start = async () => {
    enter('asked');
    const began = performance.now(), waited = () => performance.now() - began;
    do {
      await pause(10);
      if (waited() > 1000) say('Waiting for changes of the form…');
    } while (onTheWay && waited() < PATIENCE);
    say('Starting…');
    follow();
    isOurs = true;
    button().click();
    isOurs = false;
  };

  window.addEventListener('click', (event) => {
    if (isOurs || !event.target.closest?.('button#ld-generate')) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (state === 'idle') start();
    else if (state === 'ending') {
      isWanted = true;
      watch.disconnect();
      enter('asked');
    }
  }, true);

  return {
    // Gradio knows that the request has ended, or that it could not be sent.
    ended() {
      watch?.disconnect();
      if (isWanted) start();
      else enter('idle');
      isWanted = false;
    },
  };
})();
