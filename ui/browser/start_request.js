// Answers a click on a button that starts a request at once, and loses none. By itself, Gradio drops a click until it has
// heard of that button's last request's end, up to 0.3 s after "Done", and sends the form without what the server is about
// to change in it.
window.ldStart = (() => {
  const CHANGES = /\/gradio_api\/(run|upload)\b/;  // quick answers, and pictures on their way to the server
  const PATIENCE = 30000;
  const stage = () => document.querySelector('#ld-stage');
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  let onTheWay = 0;

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

  class Starter {
    // idle -> asked -> running -> ending (its last words are there, but Gradio does not know yet) -> idle
    state = 'idle';
    isWanted = false;
    isOurs = false;
    watch = null;

    constructor(name) { this.name = name; }

    get button() { return document.querySelector(`button#${this.name}`); }  // Gradio draws hidden ones again

    enter(state) {
      this.state = state;
      this.mark();
      say(state === 'asked' ? 'Starting…' : '');
    }

    mark() {
      if (this.button) this.button.ariaDisabled = ['asked', 'running'].includes(this.state) ? 'true' : null;
    }

    // Words of the server without a bar are the last ones of a request.
    follow() {
      const words = () => stage().querySelector('.ld-stage');
      const old = words(), text = old.textContent;
      this.watch = new MutationObserver(() => {
        if (this.state === 'asked' && words() === old && old.textContent === text) return;
        const next = stage().querySelector('[role=progressbar]') ? 'running' : 'ending';
        if (next !== this.state) this.enter(next);
      });
      this.watch.observe(stage(), {childList: true, subtree: true, characterData: true});
    }

    async start() {
      this.enter('asked');
      const began = performance.now(), waited = () => performance.now() - began;
      do {
        await pause(10);
        if (waited() > 1000) say('Waiting for changes of the form…');
      } while (onTheWay && waited() < PATIENCE);
      if (!this.button) { this.enter('idle'); return; }  // its panel was closed meanwhile
      say('Starting…');
      this.follow();
      this.isOurs = true;
      this.button.click();
      this.isOurs = false;
    }

    click() {
      if (this.state === 'idle') this.start();
      else if (this.state === 'ending') {
        this.isWanted = true;
        this.watch.disconnect();
        this.enter('asked');
      } else this.mark();
    }

    ended() {
      this.watch?.disconnect();
      if (this.isWanted) this.start();
      else this.enter('idle');
      this.isWanted = false;
    }
  }

  const starters = {};
  window.addEventListener('click', (event) => {
    const button = event.target.closest?.('button.ld-start');
    if (!button) return;
    const starter = starters[button.id] ??= new Starter(button.id);
    if (starter.isOurs) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    starter.click();
  }, true);

  return {
    // Gradio knows that the request of the button with this name has ended, or that it could not be sent.
    ended(name) { starters[name]?.ended(); },
  };
})();
