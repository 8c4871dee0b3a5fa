// Enlarge an image; the arrow keys lead to the other pictures in the order of the page.
'use strict';

const viewer = document.getElementById('viewer');
const zooms = [...document.querySelectorAll('.zoom')];
let current = 0;

function showPicture(index) {
  current = (index + zooms.length) % zooms.length;
  const source = zooms[current].querySelector('img');
  const target = viewer.querySelector('img');
  target.src = source.src;
  target.alt = source.alt;
  target.className = source.className;
  target.style.setProperty('--ratio', source.naturalWidth / source.naturalHeight);
  viewer.querySelector('p').textContent = source.alt;
  if (!viewer.open) viewer.showModal();
}

zooms.forEach((button, index) => button.addEventListener('click', () => showPicture(index)));
for (const button of viewer.querySelectorAll('[data-step]')) {
  button.addEventListener('click', () => showPicture(current + Number(button.dataset.step)));
}
viewer.querySelector('[data-close]').addEventListener('click', () => viewer.close());
viewer.addEventListener('click', (event) => event.target === viewer && viewer.close());
viewer.addEventListener('keydown', (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) showPicture(current + step);
});
