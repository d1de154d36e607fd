// Heat maps, as a picture inside of SVG, read like the line charts.

/// viridis, as framework/telemetry/tensorboard/picture.cpp has it.
const viridis = [
  [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128], [94, 201, 98],
  [173, 220, 48], [253, 231, 37]
];
function heat(share) {
  const place = Math.min(1, Math.max(0, share)) * (viridis.length - 1);
  const below = Math.min(Math.floor(place), viridis.length - 2);
  return viridis[below].map((low, i) => Math.round(low + (place - below) * (viridis[below + 1][i] - low)));
}

/// The bar that says what colours mean, from one end to the other.
function heatScale(low, high) {
  const stops = viridis.map(([r, g, b]) => `rgb(${r} ${g} ${b})`).join(', ');
  return html(
      'p', {class: 'scale'}, low, html('i', {style: `background: linear-gradient(to right, ${stops})`}),
      high);
}

const cellText = (value) => value === null ? 'not defined' : (value / 1000).toFixed(2);

/// options: title, rows and columns (labels), rowTitle, columnTitle, high; perhaps low and ticks(count),
/// which gives pairs of a column and its label in place of every n-th column's. values[row][column], in
/// thousandths or null, are given to show(). Returns {figure, show(values, note)}.
function heatMap(options) {
  const plot = html('div', {class: 'plot'});
  const note = html('span', {class: 'unit'});
  const readout = html('p', {class: 'readout', role: 'status'});
  let values = [], width = 0, cell = null;
  const {rows, columns} = options, low = options.low || 0;
  const figure = html(
      'figure', {class: 'heat-map'}, html('figcaption', {}, html('span', {}, options.title), note), plot,
      readout,
      numbers(
          () => table(
              options.title,
              [
                `${options.rowTitle} \\ ${options.columnTitle}`,
                ...sample(columns.length).map((c) => columns[c])
              ],
              rows.map(
                  (label, r) => [label, ...sample(columns.length).map((c) => cellText(values[r][c]))]))));
  const sample = (count) => count <= 64 ? [...Array(count).keys()] :
                                          [...Array(24).keys()].map((i) => Math.round(i * (count - 1) / 23));

  function image() {
    const canvas = html('canvas', {width: columns.length, height: rows.length});
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(columns.length, rows.length);
    values.forEach(
        (row, r) => row.forEach(
            (value, c) => pixels.data.set(
                [...heat((value / 1000 - low) / (options.high - low)), value === null ? 0 : 255],
                4 * (r * columns.length + c))));
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  function draw() {
    if (width === 0 || values.length === 0) return;
    const left = Math.min(110, 22 + 6.4 * Math.max(...rows.map((label) => String(label).length)) + 12);
    const size = Math.max(rows.length <= 10 ? 18 : 6, Math.min(22, 300 / rows.length));
    const inner = Math.round(Math.min(440, size * rows.length)), height = inner + margin.top + margin.bottom;
    const across = width - left - margin.right, foot = margin.top + inner;
    const picture = svg('svg', {
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: 'img',
      tabindex: 0,
      'aria-label': `${options.title}: ${rows.length} by ${columns.length} cells. Arrow keys read them.`
    });
    picture.append(svg('image', {
      href: image(),
      x: left,
      y: margin.top,
      width: across,
      height: inner,
      preserveAspectRatio: 'none',
      style: 'image-rendering: pixelated'
    }));
    const every = Math.ceil(rows.length / Math.max(1, inner / 13));
    rows.forEach((label, r) => {
      if (r % every !== 0) return;
      const text = String(label);
      picture.append(svg(
          'text', {x: left - 6, y: margin.top + (r + 0.5) * inner / rows.length + 4, 'text-anchor': 'end'},
          text.length > 14 ? text.slice(0, 13) + '\u2026' : text));
    });
    const wanted = Math.max(
        2, Math.floor(across / (12 + 7 * Math.max(...columns.map((label) => String(label).length)))));
    const stride = Math.ceil(columns.length / wanted);
    const ticks = options.ticks ? options.ticks(wanted) :
                                  columns.map((label, c) => [c, label]).filter(([c]) => c % stride === 0);
    for (const [c, label] of ticks) {
      const x = left + (c + 0.5) * across / columns.length;
      picture.append(
          svg('text', {x, y: foot + 15, 'text-anchor': options.ticks && x > width - 25 ? 'end' : 'middle'},
              String(label)));
    }
    picture.append(
        svg('text', {x: width - margin.right, y: foot + 31, 'text-anchor': 'end'}, options.columnTitle),
        svg('text', {
          x: 10,
          y: margin.top + inner / 2,
          'text-anchor': 'middle',
          transform: `rotate(-90 10 ${margin.top + inner / 2})`
        },
            options.rowTitle));
    const marker = svg('g', {});
    picture.append(marker);

    const place = () => {
      marker.replaceChildren();
      if (cell === null) {
        readout.textContent = 'Point at a cell, or use the arrow keys, to read it.';
        return;
      }
      const [r, c] = cell;
      const box = {
        x: left + c * across / columns.length,
        y: margin.top + r * inner / rows.length,
        width: across / columns.length,
        height: inner / rows.length
      };
      marker.append(svg('rect', {class: 'cell', ...box}), svg('rect', {class: 'cell-edge', ...box}));
      readout.textContent = options.describe(r, c, cellText(values[r][c]));
    };
    picture.addEventListener('pointermove', (event) => {
      const frame = picture.getBoundingClientRect(), ratio = width / frame.width;
      const c = Math.floor(((event.clientX - frame.left) * ratio - left) / across * columns.length);
      const r = Math.floor(((event.clientY - frame.top) * ratio - margin.top) / inner * rows.length);
      cell = c >= 0 && c < columns.length && r >= 0 && r < rows.length ? [r, c] : null;
      place();
    });
    picture.addEventListener('pointerleave', () => {
      cell = null;
      place();
    });
    picture.addEventListener('keydown', (event) => {
      const move = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
      if (event.key === 'Escape') {
        cell = null;
        place();
      }
      if (!move) return;
      event.preventDefault();
      const [r, c] = cell || [0, 0];
      cell = cell === null ? [0, 0] : [
        Math.min(rows.length - 1, Math.max(0, r + move[0])),
        Math.min(columns.length - 1, Math.max(0, c + move[1]))
      ];
      place();
    });
    plot.replaceChildren(picture);
    place();
  }
  drawToFit(plot, (now) => {
    width = now;
    draw();
  });
  return {
    figure,
    show(newValues, text) {
      values = newValues;
      note.textContent = text;
      draw();
    }
  };
}
