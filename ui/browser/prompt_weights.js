// Ctrl+Up and Ctrl+Down change the weight of the selection, or of the word or bracket around the cursor.
(() => {
  const STEP = 0.1;
  const WORD = /[^\s,.:;!?()[\]{}<>|]/;
  const NUMBER = /:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)$/;

  // Returns where the innermost bracket with a weight around [start, end] is, or null.
  const bracketAround = (text, start, end) => {
    const open = [];
    for (let place = 0; place < text.length; place++) {
      if (text[place] === '\\') { place++; continue; }  // what follows is plain text
      if (text[place] === '(') open.push(place);
      if (text[place] !== ')' || !open.length) continue;
      const from = open.pop(), to = place + 1;
      if (from > start || end > to) continue;
      const found = text.slice(from, to).match(NUMBER);
      if (found) return {from, to, inner: text.slice(from + 1, from + found.index), weight: Number(found[1])};
    }
    return null;
  };
  const tagAround = (text, start, end) => {
    for (const found of text.matchAll(/<(lora|lyco):([^<>:]+)(?::([^<>:]*))?((?::[^<>]*)?)>/gi)) {
      const from = found.index, to = from + found[0].length;
      if (from < start && end < to) return {from, to, found, weight: Number(found[3] || 1)};
    }
    return null;
  };
  const wordAround = (text, start, end) => {
    if (start === end) {
      while (start > 0 && WORD.test(text[start - 1])) start--;
      while (end < text.length && WORD.test(text[end])) end++;
    }
    while (start < end && /\s/.test(text[start])) start++;
    while (end > start && /\s/.test(text[end - 1])) end--;
    return [start, end];
  };
  const rounded = (weight) => String(Math.round(weight * 100) / 100);

  // Returns the part of the text to replace, and what to select in its replacement; null if there is nothing to weigh.
  const change = (text, start, end, step) => {
    const tag = tagAround(text, start, end);
    if (tag && Number.isFinite(tag.weight)) {
      const [, kind, name, , rest] = tag.found, put = `<${kind}:${name}:${rounded(tag.weight + step)}${rest}>`;
      return {...tag, put, left: 1, right: put.length - 1};
    }
    const bracket = bracketAround(text, start, end);
    const whole = bracket && start === bracket.from && end === bracket.to;
    const inside = bracket && start === bracket.from + 1 && end === start + bracket.inner.length;
    if (bracket && (start === end || whole || inside)) {
      const weight = rounded(bracket.weight + step), plain = weight === '1';
      const put = plain ? bracket.inner : `(${bracket.inner}:${weight})`, left = plain ? 0 : 1;
      return {...bracket, put, left, right: left + bracket.inner.length};
    }
    const [from, to] = wordAround(text, start, end);
    if (from === to) return null;
    return {from, to, put: `(${text.slice(from, to)}:${rounded(1 + step)})`, left: 1, right: 1 + to - from};
  };

  document.addEventListener('keydown', (event) => {
    const field = event.target, up = event.key === 'ArrowUp';
    if (!(event.ctrlKey || event.metaKey) || event.altKey || (!up && event.key !== 'ArrowDown')) return;
    if (!field.matches?.('#ld-prompt textarea, #ld-negative-prompt textarea')) return;
    event.preventDefault();
    const changed = change(field.value, field.selectionStart, field.selectionEnd, up ? STEP : -STEP);
    if (!changed) return;
    field.setSelectionRange(changed.from, changed.to);
    document.execCommand('insertText', false, changed.put);  // unlike an assignment, it can be undone
    field.setSelectionRange(changed.from + changed.left, changed.from + changed.right);
  });
})();
