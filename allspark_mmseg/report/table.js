// Sort a table by a column: a click on a heading, numbers from high to low first.
'use strict';
const report = JSON.parse(document.getElementById('data').textContent);

function make(tag, attributes = {}, ...children) {
  const svg = ['svg', 'g', 'path', 'line', 'rect', 'text', 'circle'].includes(tag);
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function cellValue(row, column) {
  const cell = row.cells[column];
  const text = (cell.dataset.value ?? cell.textContent).trim();
  const number = Number(text.replace('−', '-'));
  return text !== '' && Number.isFinite(number) ? number : text;
}

function compare(first, second, sign) {
  // cells without a value stay at the end
  const missing = [first, second].map((value) => value === '' || value === '–');
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  if (typeof first === 'number' && typeof second === 'number') return sign * (first - second);
  return sign * String(first).localeCompare(String(second), undefined, { numeric: true });
}

for (const table of document.querySelectorAll('table.sortable')) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = make('button', { type: 'button' }, ...heading.childNodes);
    heading.append(button);
    heading.setAttribute('aria-sort', 'none');
    button.addEventListener('click', () => {
      const numbers = heading.classList.contains('n');
      const before = heading.getAttribute('aria-sort');
      const descending = before === 'none' ? numbers : before === 'ascending';
      for (const other of headings) other.setAttribute('aria-sort', 'none');
      heading.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
      const body = table.tBodies[0];
      const sign = descending ? -1 : 1;
      const rows = [...body.rows];
      rows.sort((first, second) => compare(cellValue(first, column), cellValue(second, column), sign));
      body.append(...rows);
    });
  });
}
