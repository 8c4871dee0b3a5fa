// Charts: hover to read, drag to zoom, click a name to hide its curve, double-click to see it alone.
'use strict';

const MARGIN = { left: 46, right: 12, top: 18, bottom: 34 };
const HEIGHT = 260;
const DASHES = ['', '6 4', '2 3'];

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

function format(value, chart) {
  if (chart.percent) return `${(100 * value).toFixed(1)} %`;
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 4;
  return `${chart.unit ? value.toFixed(1) : value.toFixed(digits)}${chart.unit ? ` ${chart.unit}` : ''}`;
}

class Chart {
  constructor(place, chart) {
    this.chart = chart;
    this.place = place;
    this.hidden = new Set();
    this.range = null;
    this.svg = make('svg', { role: 'img', 'aria-label': chart.alt, height: HEIGHT });
    this.tip = make('div', { class: 'tip', hidden: '' });
    this.reset = make('button', { type: 'button', class: 'reset', hidden: '' }, 'Reset zoom');
    this.reset.addEventListener('click', () => this.zoom(null));
    const notes = chart.note ? [make('p', { class: 'hint' }, chart.note)] : [];
    place.replaceChildren(make('h3', {}, chart.title), ...notes, this.svg, this.legend(), this.tip, this.reset);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(place);
  }

  color(index) {
    return `var(--c${(this.chart.series[index].color ?? index) % 10})`;
  }

  dash(index) {
    return this.chart.series[index].dashed ? DASHES[1] : DASHES[Math.floor((this.chart.series[index].color ?? index) / 10) % 3];
  }

  legend() {
    const list = make('ul', { class: 'legend' });
    this.buttons = this.chart.series.map((series, index) => {
      const line = make('line', {
        x1: 0, x2: 24, y1: 5, y2: 5, stroke: this.color(index), 'stroke-width': 3, 'stroke-dasharray': this.dash(index),
      });
      const sample = make('svg', { viewBox: '0 0 24 10', 'aria-hidden': 'true' }, line);
      const button = make('button', { type: 'button', 'aria-pressed': 'true' }, sample, series.name);
      button.addEventListener('click', () => this.toggle(index));
      button.addEventListener('dblclick', () => this.isolate(index));
      list.append(make('li', {}, button));
      return button;
    });
    return list;
  }

  toggle(index) {
    if (!this.hidden.delete(index)) this.hidden.add(index);
    this.update();
  }

  isolate(index) {
    const others = this.chart.series.map((_, each) => each).filter((each) => each !== index);
    const alone = !this.hidden.has(index) && others.every((each) => this.hidden.has(each));
    this.hidden = new Set(alone ? [] : others);
    this.update();
  }

  update() {
    this.buttons.forEach((button, index) => button.setAttribute('aria-pressed', String(!this.hidden.has(index))));
    this.draw();
  }

  zoom(range) {
    this.range = range;
    this.reset.hidden = !range;
    this.draw();
  }

  visible() {
    return this.chart.series.map((series, index) => ({ ...series, index })).filter(({ index }) => !this.hidden.has(index));
  }

  scales() {
    const all = this.chart.series.flatMap(({ points }) => points.map(([x]) => x));
    const x = this.range ?? [Math.min(...all), Math.max(...all)];
    if (x[0] === x[1]) x[1] = x[0] + 1;
    const inside = this.visible().flatMap(({ points }) => points.filter(([at]) => at >= x[0] && at <= x[1]));
    const values = inside.flatMap((point) => point.slice(1));
    let low = values.length ? Math.min(...values) : 0;
    let high = values.length ? Math.max(...values) : 1;
    if (this.chart.percent && high > 0.5 && !this.range) [low, high] = [0, 1];
    else if (low > 0 && low < high / 2) low = 0;
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    if (low !== 0) low -= room;
    if (!(this.chart.percent && high === 1)) high += room;
    const width = this.svg.clientWidth || this.place.clientWidth;
    const [left, right] = [MARGIN.left, Math.max(width - MARGIN.right, MARGIN.left + 10)];
    const [top, bottom] = [MARGIN.top, HEIGHT - MARGIN.bottom];
    return {
      x, y: [low, high], left, right, top, bottom,
      toX: (value) => left + ((value - x[0]) / (x[1] - x[0])) * (right - left),
      toY: (value) => bottom - ((value - low) / (high - low)) * (bottom - top),
      fromX: (pixel) => x[0] + ((pixel - left) / (right - left)) * (x[1] - x[0]),
    };
  }

  draw() {
    if (!this.place.clientWidth) return;
    const s = (this.scale = this.scales());
    this.svg.replaceChildren(...this.axes(s), ...this.marks(s), ...this.visible().flatMap((each) => this.curve(each, s)));
  }

  axes(s) {
    const nodes = [];
    for (const value of ticks(...s.y, 5)) {
      const y = s.toY(value);
      const text = this.chart.percent ? `${Math.round(1000 * value) / 10}%` : String(Number(value.toPrecision(6)));
      nodes.push(make('line', { class: 'grid', x1: s.left, x2: s.right, y1: y, y2: y }));
      nodes.push(make('text', { x: s.left - 8, y: y + 4, 'text-anchor': 'end' }, text));
    }
    for (const value of ticks(...s.x, Math.max(3, Math.floor((s.right - s.left) / 70)))) {
      if (value % 1) continue;
      nodes.push(make('text', { x: s.toX(value), y: s.bottom + 18, 'text-anchor': 'middle' }, String(value)));
    }
    nodes.push(make('line', { class: 'axis', x1: s.left, x2: s.right, y1: s.bottom, y2: s.bottom }));
    nodes.push(make('text', { x: s.right, y: s.bottom + 33, 'text-anchor': 'end' }, 'iteration'));
    return nodes;
  }

  marks(s) {
    let free = s.left; // a text that would cover the one before it is left out
    return this.chart.marks.filter(([at]) => at >= s.x[0] && at <= s.x[1]).flatMap(([at, text]) => {
      const [x, width] = [s.toX(at), 6.6 * text.length];
      const line = make('line', { class: 'mark', x1: x, x2: x, y1: s.top, y2: s.bottom });
      const late = x + width > s.right;
      if ((late ? x - width : x) < free) return [line];
      free = late ? x : x + width;
      const place = { x: x + (late ? -5 : 5), y: s.top - 5, 'text-anchor': late ? 'end' : 'start' };
      return [line, make('text', place, text)];
    });
  }

  curve({ points, index }, s) {
    const before = points.findLastIndex(([x]) => x < s.x[0]);
    const after = points.findIndex(([x]) => x > s.x[1]);
    const shown = points.filter(([x]) => x >= s.x[0] && x <= s.x[1]);
    // the neighbors outside give the slope at the edges of a zoomed chart
    if (shown.length && before >= 0 && this.range) shown.unshift(this.edge(points[before], points[before + 1], s.x[0]));
    if (shown.length && after > 0 && this.range) shown.push(this.edge(points[after - 1], points[after], s.x[1]));
    const line = (pairs) => pairs.map(([x, y]) => `${s.toX(x).toFixed(1)} ${s.toY(y).toFixed(1)}`).join('L');
    const style = { stroke: this.color(index), 'stroke-dasharray': this.dash(index), class: 'curve', 'data-name': this.chart.series[index].name };
    const nodes = [];
    if (shown.length && shown[0].length > 2) {
      const outline = [...shown.map(([x, , low]) => [x, low]), ...shown.map(([x, , , high]) => [x, high]).reverse()];
      nodes.push(make('path', { class: 'band', fill: this.color(index), d: `M${line(outline)}Z` }));
    }
    if (shown.length) nodes.push(make('path', { ...style, d: `M${line(shown)}` }));
    if (shown.length <= 40) {
      for (const [x, y] of shown) nodes.push(make('circle', { cx: s.toX(x), cy: s.toY(y), r: 2.6, fill: this.color(index) }));
    }
    return nodes;
  }

  edge(first, last, x) {
    const part = (x - first[0]) / (last[0] - first[0]);
    return first.map((value, place) => value + part * (last[place] - value));
  }

  listen() {
    const at = (event) => {
      const x = event.clientX - this.svg.getBoundingClientRect().left;
      return Math.min(Math.max(x, this.scale.left), this.scale.right);
    };
    this.svg.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      this.start = at(event);
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener('pointermove', (event) => {
      this.clear();
      if (this.start === undefined) this.point(at(event));
      else this.overlay(make('rect', {
        class: 'drag', x: Math.min(this.start, at(event)), width: Math.abs(this.start - at(event)),
        y: this.scale.top, height: this.scale.bottom - this.scale.top,
      }));
    });
    this.svg.addEventListener('pointerup', (event) => {
      const [low, high] = [this.start, at(event)].sort((first, last) => first - last);
      this.start = undefined;
      this.clear();
      if (high - low > 8) this.zoom([this.scale.fromX(low), this.scale.fromX(high)]);
      else this.point(at(event));
    });
    this.svg.addEventListener('pointercancel', () => { this.start = undefined; this.clear(); });
    this.svg.addEventListener('pointerleave', () => this.start === undefined && this.clear());
    this.svg.addEventListener('dblclick', () => this.zoom(null));
  }

  overlay(...nodes) {
    const group = make('g', { class: 'overlay' }, ...nodes);
    this.svg.append(group);
  }

  clear() {
    this.svg.querySelector('.overlay')?.remove();
    this.tip.hidden = true;
  }

  point(pixel) {
    const s = this.scale;
    const steps = this.visible().flatMap(({ points }) => points.map(([x]) => x)).filter((x) => x >= s.x[0] && x <= s.x[1]);
    if (!steps.length) return;
    const wanted = s.fromX(pixel);
    const step = steps.reduce((best, x) => (Math.abs(x - wanted) < Math.abs(best - wanted) ? x : best));
    const found = this.visible()
      .map((series) => ({ ...series, at: series.points.find(([x]) => x === step) }))
      .filter(({ at }) => at)
      .sort((first, last) => last.at[1] - first.at[1]);
    const dots = found.map(({ at, index }) => make('circle', { cx: s.toX(step), cy: s.toY(at[1]), r: 4, fill: this.color(index) }));
    this.overlay(make('line', { class: 'cross', x1: s.toX(step), x2: s.toX(step), y1: s.top, y2: s.bottom }), ...dots);
    this.describe(step, found, s);
  }

  describe(step, found, s) {
    const rows = found.slice(0, 14).map(({ name, at, index }) => {
      const range = at.length > 2 ? ` (${format(at[2], this.chart)} to ${format(at[3], this.chart)})` : '';
      const dot = make('i', { class: 'swatch' });
      dot.style.background = this.color(index);
      return make('tr', {}, make('td', {}, dot, name), make('td', { class: 'n' }, format(at[1], this.chart) + range));
    });
    const more = found.length > 14 ? [make('div', {}, `and ${found.length - 14} more`)] : [];
    this.tip.replaceChildren(make('b', {}, `iteration ${step}`), make('table', {}, make('tbody', {}, ...rows)), ...more);
    this.tip.hidden = false;
    const x = s.toX(step);
    const right = x + 14 + this.tip.offsetWidth <= s.right;
    this.tip.style.left = `${Math.max(0, right ? x + 14 : x - 14 - this.tip.offsetWidth)}px`;
    const [inner, outer] = [this.svg, this.place].map((node) => node.getBoundingClientRect().top);
    this.tip.style.top = `${inner - outer + s.top}px`;
  }
}

function showRun(index) {
  const more = document.getElementById('more');
  const places = [document.getElementById('run-charts'), more.querySelector('.charts')];
  for (const place of places) place.replaceChildren();
  for (const chart of report.runs[index].charts) {
    const place = make('div', { class: 'chart' });
    places[Number(chart.more)].append(place);
    new Chart(place, chart);
  }
  more.hidden = !places[1].childElementCount;
}

const comparison = document.getElementById('comparison');
if (comparison) {
  const place = document.getElementById('comparison-chart');
  const show = () => {
    const fresh = make('div', { class: 'chart' });
    place.replaceChildren(fresh);
    new Chart(fresh, report.comparisons[Number(comparison.value)]);
  };
  comparison.addEventListener('change', show);
  show();
}
const runSelect = document.getElementById('run-select');
if (runSelect) {
  runSelect.addEventListener('change', () => showRun(Number(runSelect.value)));
  showRun(Number(runSelect.value));
}
