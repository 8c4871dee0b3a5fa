// The confusion matrix as a heat map: numbers where there is room, the rest below it on hover or focus.
'use strict';

function sentence(matrix, row, column) {
  const [truth, found] = [matrix.classes[row], matrix.classes[column]];
  const share = `${matrix.percent[row][column].toFixed(1)} % of the pixels of ${truth}`;
  return row === column ? `${share} are found.` : `${share} are taken for ${found}.`;
}

function cell(matrix, row, column, dense) {
  const value = matrix.percent[row][column];
  const node = make('td', row === column ? { class: 'diagonal' } : {});
  if (value === null) return node;
  node.title = sentence(matrix, row, column);
  const color = row === column ? 'var(--c0)' : 'var(--c1)';
  node.style.background = `color-mix(in srgb, ${color} ${value.toFixed(0)}%, var(--soft))`;
  if (value > 60) node.classList.add(value > 85 ? 'full' : 'half');
  if (!dense && value >= 0.5) node.textContent = value.toFixed(0);
  return node;
}

function drawMatrix(matrix) {
  const dense = matrix.classes.length > 25;
  const read = make('p', { class: 'read hint' }, 'Point at a cell to read it.');
  const head = make('tr', {}, make('th', { scope: 'col' }, 'true class'));
  for (const name of matrix.classes) head.append(make('th', { scope: 'col' }, make('span', {}, name)));
  const body = make('tbody');
  matrix.classes.forEach((name, row) => {
    const line = make('tr', {}, make('th', { scope: 'row' }, name));
    matrix.classes.forEach((_, column) => line.append(cell(matrix, row, column, dense)));
    body.append(line);
  });
  const caption = make('caption', {}, make('span', {}, `${matrix.name}: percent of the pixels of each true class.`));
  const table = make('table', { class: dense ? 'matrix dense' : 'matrix' }, caption, make('thead', {}, head), body);
  table.addEventListener('pointerover', (event) => {
    if (event.target.title) read.textContent = event.target.title;
  });
  const region = make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `Confusion matrix of ${matrix.name}` }, table);
  const items = matrix.top.map(([share, truth, found]) => make('li', {}, `${share.toFixed(0)} % of ${truth} is taken for ${found}`));
  const list = items.length ? [make('h3', {}, 'Most frequent confusions'), make('ul', { class: 'hint' }, ...items)] : [];
  document.getElementById('matrix').replaceChildren(region, make('div', {}, ...list, read));
}

const buttons = document.getElementById('matrix-buttons');
if (buttons) {
  report.matrices.forEach((matrix, index) => {
    const button = make('button', { type: 'button', 'aria-pressed': String(!index) }, matrix.name);
    button.addEventListener('click', () => {
      for (const other of buttons.children) other.setAttribute('aria-pressed', String(other === button));
      drawMatrix(matrix);
    });
    buttons.append(button);
  });
  drawMatrix(report.matrices[0]);
}
