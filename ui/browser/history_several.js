// Marks the starred pictures of the history, and lets the user choose several of them to delete them together.
(() => {
  const pictures = (count) => `${count} picture${count === 1 ? '' : 's'}`;

  class Several {
    constructor(element, props, watch, trigger) {
      Object.assign(this, {props, trigger, names: [], chosen: new Set(), last: 0});
      for (const part of element.querySelectorAll('[data-part]')) this[part.dataset.part] = part;
      this.box = this.also.querySelector('input');
      this.tab = element.closest('[role=tabpanel]');
      this.switch.onclick = () => this.turn(!this.isOn);
      this.all.onclick = () => this.choose(this.names, true);
      this.none.onclick = () => this.choose(this.names, false);
      this.ask.onclick = () => this.openQuestion();
      this.keep.onclick = () => { this.question.hidden = true; this.ask.focus(); };
      this.box.onchange = () => this.tell();
      this.delete.onclick = () => this.confirm();
      this.tab.addEventListener('click', (event) => this.click(event), true);
      this.tab.addEventListener('keydown', (event) => this.leave(event));
      watch('value', () => this.draw());
      this.observer = new MutationObserver(() => this.draw());
      this.observer.observe(this.tab, {childList: true, subtree: true});
      this.draw();
    }

    get isOn() { return this.switch.ariaPressed === 'true'; }
    get items() { return [...this.tab.querySelectorAll('#ld-history .thumbnail-lg')]; }

    turn(on) {
      this.switch.ariaPressed = String(on);
      this.choose(this.names, false);
    }

    // A picture is chosen with a click, and with Shift all pictures from the last one to it.
    click(event) {
      const here = this.items.indexOf(event.target.closest('.thumbnail-lg'));
      if (!this.isOn || here < 0) return;
      event.stopPropagation();
      const from = event.shiftKey ? this.last : here;
      const names = this.names.slice(Math.min(from, here), Math.max(from, here) + 1);
      this.last = here;
      this.choose(names, !this.chosen.has(this.names[here]));
    }

    choose(names, wanted) {
      for (const name of names) wanted ? this.chosen.add(name) : this.chosen.delete(name);
      this.question.hidden = true;
      this.draw();
    }

    // Escape closes the question first, and then ends the choice.
    leave(event) {
      if (event.key !== 'Escape' || !this.isOn || !event.target.closest('#ld-history, #ld-history-several')) return;
      if (!this.question.hidden) { this.keep.click(); return; }
      this.turn(false);
      this.switch.focus();
    }

    openQuestion() {
      this.box.checked = false;
      this.question.hidden = false;
      this.tell();
      this.keep.focus();
    }

    confirm() {
      this.question.hidden = true;
      this.switch.focus();
      this.trigger('select', {index: 0, value: {names: [...this.chosen], starred: this.box.checked}});
    }

    draw() {
      const {names, starred} = this.props.value;
      if (names.join('\n') !== this.names.join('\n')) {
        Object.assign(this, {names, last: 0});
        this.chosen.clear();
        this.question.hidden = true;
      }
      this.items.forEach((item, index) => {
        const isStarred = starred.includes(names[index]);
        item.toggleAttribute('data-starred', isStarred);
        item.ariaDescription = isStarred ? 'starred' : null;
        item.ariaPressed = this.isOn ? String(this.chosen.has(names[index])) : null;
      });
      this.tell();
      this.observer?.takeRecords();  // of what was just changed here
    }

    // Writes the numbers.
    tell() {
      const count = this.chosen.size;
      const starred = this.props.value.starred.filter((name) => this.chosen.has(name)).length;
      const doomed = this.box.checked ? count : count - starred;
      const ones = starred === 1 ? 'starred one' : `${starred} starred ones`;
      const kept = starred && !this.box.checked ? ` The ${ones} will be kept.` : '';
      const hint = 'Click pictures to choose them. Shift chooses all between two clicks.';
      this.switch.hidden = !this.names.length;
      this.tools.hidden = !this.isOn;
      this.ask.disabled = !count;
      this.count.textContent = this.isOn ? (count ? `${count} of ${this.names.length} chosen` : hint) : '';
      this.words.textContent = doomed ? `Delete ${pictures(doomed)} permanently?${kept}`
        : 'Only starred pictures are chosen. They will be kept.';
      this.also.hidden = !starred;
      this.also.lastElementChild.textContent = `Delete the ${ones} too`;
      this.delete.textContent = `Delete ${pictures(doomed)}`;
      this.delete.disabled = !doomed;
    }
  }

  window.ldSeveral = (...parts) => new Several(...parts);
})();
