// Draws the cards of model files when their tab is opened. A click on a LoRA or an embedding changes the prompt.
// All texts come from files of strangers, so they are set as text and never as HTML.
(() => {
  const WORDS_SHOWN = 3;
  const PICTURES_TOGETHER = 24;

  const make = (tag, className, text) => {
    const made = document.createElement(tag);
    if (tag === 'button') made.type = 'button';
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const buttonFor = (className, text, isOn, onClick) =>
    Object.assign(make('button', className, text), {isOn, onclick: onClick});
  const chip = (text, piece, negative) => buttonFor('ld-model-word', text,
    () => window.ldPrompt.has(piece, negative), () => window.ldPrompt.toggle(piece, negative));
  const pieceOf = (card) => card.kind === 'loras' ? window.ldPrompt.lora(card) : window.ldPrompt.word(card.called);

  // Hides all but the first words behind a button.
  const fold = (words) => {
    const hidden = [...words.children].slice(WORDS_SHOWN);
    if (!hidden.length) return;
    const show = (shown) => hidden.forEach((button) => { button.hidden = !shown; });
    const more = make('button', 'ld-model-word', `+${hidden.length}`);
    more.title = 'Shows all words';
    more.onclick = () => { show(true); hidden[0].focus(); more.remove(); };
    show(false);
    words.append(more);
  };

  const fits = (card, checkpoint) => {
    if (!checkpoint || card.kind === 'checkpoints') return true;
    if (card.width && checkpoint.width) return card.width === checkpoint.width;
    return !card.family || !checkpoint.family || card.family === checkpoint.family;
  };
  const familyWords = (card, checkpoint) => {
    if (fits(card, checkpoint)) return [card.family, ...card.details].filter(Boolean).join(' · ');
    if (!card.family) return 'for another model';
    return card.family === checkpoint.family ? `for another ${card.family}` : `for ${card.family}`;
  };

  // The first letters of a name's words, or of its only word.
  const lettersOf = (title) => {
    const words = title.split(/[^\p{L}\p{N}]+/u).filter(Boolean);
    return words.length > 1 ? words.slice(0, 3).map((word) => word[0]).join('') : title.slice(0, 2);
  };

  // Asks for pictures when their card comes into view, some together.
  class Pictures {
    constructor(server) {
      this.server = server;
      this.wanted = [];
      this.observer = new IntersectionObserver((entries) => this.note(entries), {rootMargin: '200px'});
    }
    watch(items) {
      this.observer.disconnect();
      items.filter(({card}) => card.picture).forEach((item) => this.observer.observe(item));
    }
    note(entries) {
      const seen = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
      seen.forEach((item) => this.observer.unobserve(item));
      if (seen.length && !this.wanted.length) setTimeout(() => this.load(), 50);
      this.wanted.push(...seen);
    }
    async load() {
      const items = this.wanted.slice(0, PICTURES_TOGETHER);
      const urls = await this.server.load_pictures(items.map(({card}) => [card.kind, card.name])).catch(() => []);
      items.forEach((item, index) => { if (urls[index]) this.show(item, urls[index]); });
      this.wanted.splice(0, items.length);
      if (this.wanted.length) this.load();
    }
    show(item, url) {
      item.querySelector('.ld-model-tile').replaceChildren(Object.assign(make('img', ''), {alt: '', src: url}));
    }
  }

  class Models {
    constructor(element, server, trigger) {
      const find = (selector) => element.querySelector(selector);
      Object.assign(this, {server, trigger, cards: [], drawn: '', pictures: new Pictures(server)});
      this.kind = find('.ld-models-kind');
      this.folder = find('.ld-models-folder');
      this.filter = find('input[type=search]');
      this.list = find('.ld-models-cards');
      this.status = find('[role=status]');
      this.chosen = document.querySelector('input[aria-label="Checkpoint"]')?.value || '';
      this.kind.addEventListener('input', () => this.listFolders());
      for (const field of [this.folder, this.filter]) field.addEventListener('input', () => this.narrow());
      for (const box of [false, true].map(window.ldPrompt.field)) box.addEventListener('input', () => this.mark());
      window.addEventListener('ld-checkpoint', (event) => { this.chosen = event.detail; this.mark(); });
      new IntersectionObserver(([entry]) => { if (entry.isIntersecting) this.load(); }).observe(element);
    }

    async load() {
      const failed = {error: 'The models cannot be listed: the server does not answer.'};
      const {cards, error} = await this.server.list_cards(null).catch(() => failed);
      if (error) { this.status.textContent = error; return; }
      const text = JSON.stringify(cards);
      if (text !== this.drawn) {
        Object.assign(this, {drawn: text, cards});
        this.list.replaceChildren(...cards.map((card) => this.draw(card)));
        this.pictures.watch([...this.list.children]);
      }
      this.listFolders();
      this.mark();
    }

    draw(card) {
      const item = make('li', 'ld-model-card'), words = make('div', 'ld-model-words');
      item.card = card;
      item.text = [card.name, card.family, ...card.details, ...card.words].join(' ').toLowerCase();
      const called = card.kind === 'checkpoints' ? [] : card.words;
      words.append(...called.map((word) => chip(word, window.ldPrompt.word(word), false)));
      fold(words);
      if (card.kind === 'embeddings') words.append(chip('Negative', pieceOf(card), true));
      item.append(this.mainButton(card), ...(words.children.length ? [words] : []));
      return item;
    }

    mainButton(card) {
      const button = card.kind === 'checkpoints'
        ? buttonFor('', '', () => this.checkpoint() === card, () => this.choose(card.name))
        : chip('', pieceOf(card), false);
      const title = card.called.split('/').pop(), tile = make('span', 'ld-model-tile');
      tile.append(make('span', 'ld-model-letters', lettersOf(title)));
      tile.ariaHidden = 'true';
      button.append(tile, make('span', 'ld-model-name', title), make('span', 'ld-model-family'));
      return Object.assign(button, {className: 'ld-model-main', title: card.name});
    }

    choose(name) { this.trigger('select', {value: name, index: 0}); }

    checkpoint() {
      return this.cards.find(({kind, name, called}) => kind === 'checkpoints' && [name, called].includes(this.chosen));
    }

    // Shows which cards are in the prompt, and which do not fit the checkpoint.
    mark() {
      const checkpoint = this.checkpoint();
      for (const item of this.list.children) {
        const family = item.querySelector('.ld-model-family');
        family.textContent = familyWords(item.card, checkpoint);
        family.classList.toggle('ld-model-foreign', !fits(item.card, checkpoint));
        for (const button of item.querySelectorAll('button')) if (button.isOn) button.ariaPressed = button.isOn();
      }
    }

    isOfKind({kind}) { return !this.kind.value || kind === this.kind.value; }

    listFolders() {
      const last = this.folder.value;
      const folders = this.cards.filter((card) => this.isOfKind(card)).map((card) => card.folder);
      const names = [...new Set(folders.filter(Boolean))].sort();
      this.folder.replaceChildren(...['', ...names].map((name) => new Option(name || 'All', name)));
      this.folder.value = names.includes(last) ? last : '';
      this.folder.disabled = !names.length;
      this.narrow();
    }

    // Shows the cards of the chosen kind and folder that have all words of the filter.
    narrow() {
      const words = this.filter.value.toLowerCase().split(/\s+/), folder = this.folder.value;
      const items = [...this.list.children].filter((item) => this.isOfKind(item.card));
      const shown = items.filter(({card, text}) => (!folder || `${card.folder}/`.startsWith(`${folder}/`))
        && words.every((word) => text.includes(word)));
      for (const item of this.list.children) item.hidden = !shown.includes(item);
      const count = `${shown.length} of ${items.length}`;
      this.status.textContent = items.length ? count : 'There is none in its model folder.';
    }
  }

  window.ldModels = (element, server, trigger) => new Models(element, server, trigger);
})();
