// Words and LoRA tags in the two prompts, which cards of models switch on and off.
window.ldPrompt = {
  field: (negative) => document.querySelector(`#ld-${negative ? 'negative-' : ''}prompt textarea`),
  escaped: (text) => text.replace(/[.*+?^${}()|[\]\\\/]/g, '\\$&'),
  // A word counts where it stands between commas, spaces and the ends. It goes with the comma before it.
  word(text) {
    return {text, comma: ', ', pattern: new RegExp(`(^|,|\\s)\\s*${this.escaped(text)}(?=$|[,\\s])`)};
  },
  // A tag counts with any weight.
  lora({name, called, folder, weight}) {
    const names = [name, called, `${folder}/${called}`].map(this.escaped).join('|');
    const pattern = new RegExp(`,?\\s*<lora:(?:${names})(?::[^>]*)?>`);
    return {text: `<lora:${called}:${weight}>`, comma: ' ', pattern};
  },
  has(piece, negative) { return piece.pattern.test(this.field(negative).value); },
  toggle(piece, negative) {
    const box = this.field(negative), rest = box.value.replace(/[,\s]+$/, '');
    if (this.has(piece, negative)) box.value = box.value.replace(piece.pattern, '').replace(/^[,\s]+/, '');
    else box.value = rest ? `${rest}${piece.comma}${piece.text}` : piece.text;
    box.dispatchEvent(new Event('input', {bubbles: true}));
  },
};
