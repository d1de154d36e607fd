// What the report's charts and tables are made of: elements, numbers as text, scales. No library.
'use strict';

// ---- elements

function make(space, tag, attributes, children) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {}))
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const html = (tag, attributes, ...children) => make(null, tag, attributes, children);
const svg = (tag, attributes, ...children) => make('http://www.w3.org/2000/svg', tag, attributes, children);
let identifiers = 0;
const newId = () => 'id' + ++identifiers;

// ---- numbers as text

function withUnit(value, base, units) {
  let unit = 0;
  let rest = Math.abs(value);
  while (rest >= base * 0.9995 && unit + 1 < units.length) {
    rest /= base;
    ++unit;
  }
  const digits = unit === 0 && Number.isInteger(rest) ? 0 : rest < 9.995 ? 2 : rest < 99.95 ? 1 : 0;
  return (value < 0 ? '-' : '') + rest.toFixed(digits) + (units[unit] ? ' ' + units[unit] : '');
}
const grouped = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, '\u202f');

/// A number as short as four digits allow.
function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return 'none';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1e4 && size < 1e5) return grouped(value);
  if (size >= 1e5) return withUnit(value, 1000, ['', 'k', 'M', 'G', 'T', 'P', 'E']);
  if (size < 1e-3) return value.toExponential(2).replace('e-', 'e\u2212');
  return String(Number(value.toPrecision(4)));
}

/// A round step on an axis.
const stepText = (step) => step >= 1e5 ? short(step).replace(/\.?0+ /, ' ') : grouped(step);

function duration(seconds) {
  if (seconds < 60) return seconds.toFixed(1) + ' s';
  const whole = Math.round(seconds);
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = parts.findIndex(([size]) => whole >= size);
  return parts.slice(first, first + 2)
      .map(([size, unit], i) => Math.floor((i === 0 ? whole : whole % parts[first][0]) / size) + ' ' + unit)
      .join(' ');
}

function valueText(value, unit) {
  if (unit === 'of') return value.map(grouped).join(' of ');
  if (typeof value !== 'number') return value === null ? 'none' : String(value);
  if (unit === 'bytes') return withUnit(value, 1000, ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB']);
  if (unit === 'seconds') return duration(value);
  if (unit === 'count') return value < 1e12 ? grouped(value) : short(value);
  if (unit === 'nats') return value.toFixed(4) + ' nats';
  return short(value);
}

// ---- tables

/// Rows of cells; the first cell of a row is its heading.
function table(caption, headings, rows, kind) {
  const head = headings ?
      html('thead', {}, html('tr', {}, ...headings.map((text) => html('th', {scope: 'col'}, text)))) :
      null;
  const body = html(
      'tbody', {},
      ...rows.map(
          (row) => html(
              'tr', {},
              ...row.map(
                  (cell, i) =>
                      i === 0 ? html('th', {scope: 'row'}, String(cell)) : html('td', {}, String(cell))))));
  // What scrolls must be reachable by keyboard.
  return html(
      'div', {
        class: 'table' + (kind ? ' ' + kind : ''),
        tabindex: 0,
        role: 'group',
        'aria-label': caption || 'Table'
      },
      html('table', {}, caption ? html('caption', {}, caption) : null, head, body));
}

/// A table that is built when it is opened.
function numbers(build) {
  const details = html('details', {}, html('summary', {}, 'Numbers'));
  details.addEventListener('toggle', () => {
    while (details.children.length > 1) details.lastChild.remove();
    if (details.open) details.append(build());
  });
  return details;
}

// ---- scales

function niceTicks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const factors = Math.log10(high / low) > 2.5 ? [1] : Math.log10(high / low) > 1 ? [1, 3] : [1, 2, 3, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); ++power)
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(Number(tick.toPrecision(6)));
    }
  return ticks;
}

/// The index of the number nearest to x among ascending ones.
function nearest(numbers, x) {
  let low = 0, high = numbers.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < x)
      low = middle + 1;
    else
      high = middle;
  }
  return low > 0 && x - numbers[low - 1] <= numbers[low] - x ? low - 1 : low;
}

const colour = (i) => `var(--c${i % 8})`;
const dash = (i) => [null, '5 3', '1.5 2.5', '8 3 2 3'][Math.floor(i / 8) % 4];
const margin = {
  left: 54,
  right: 10,
  top: 8,
  bottom: 36
};

/// Calls draw(width) as soon as the element has a width, and whenever it changes.
function drawToFit(element, draw) {
  let width = 0;
  new ResizeObserver(() => requestAnimationFrame(() => {
                       if (element.clientWidth === width || element.clientWidth === 0) return;
                       width = element.clientWidth;
                       draw(width);
                     }))
      .observe(element);
}
