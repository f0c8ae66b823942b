// A slider under a number moves with it. The slider covers the usual values; the number may be any.
(() => {
  const sliderOf = (name) => document.querySelector(`.ld-slider[data-field="${name}"]`);
  window.ldSlide = (name, value) => {
    const slider = sliderOf(name);
    if (slider && value !== null) slider.value = value;
  };
  document.addEventListener('input', (event) => {
    const name = event.target.dataset?.field;
    if (!name || !event.target.matches('.ld-slider')) return;
    const field = document.querySelector(`#ld-number-${name} input`);
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, event.target.value);
    field.dispatchEvent(new Event('input', {bubbles: true}));
  });
})();
