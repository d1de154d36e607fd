// Lines and areas over steps, as SVG, read by pointer, touch or arrow keys, with their numbers as a table.

/// options: title, unit, series [{label, x, y, colour, dash, marks}], and perhaps logarithmic, fromZero,
/// stacked (areas over the same x), xTitle.
function lineChart(options) {
  const {title, unit} = options;
  const series = options.series.filter((one) => one.x.length > 0);
  const plot = html('div', {class: 'plot'});
  const legend = html('ul', {class: 'legend'});
  const spoken = html('span', {class: 'hidden', role: 'status'});
  const figure = html(
      'figure', {class: 'chart'},
      html('figcaption', {}, html('span', {}, title), html('span', {class: 'unit'}, unit || '')), legend,
      plot, spoken, numbers(() => numberTable(options.title, series, options.xTitle || 'step')));
  const shows = (value) => value !== null && Number.isFinite(value) && !(options.logarithmic && value <= 0);
  if (!series.some((one) => one.y.some(shows))) {
    plot.append(html('p', {class: 'quiet'}, 'Nothing was logged.'));
    return figure;
  }

  // What is drawn: for areas the sums from below.
  const tops = series.map((one) => one.y);
  const bottoms = series.map(() => null);
  if (options.stacked)
    for (let i = 1; i < series.length; ++i) {
      bottoms[i] = tops[i - 1];
      tops[i] = series[i].y.map((value, j) => value + tops[i - 1][j]);
    }
  let low = Infinity, high = -Infinity, first = Infinity, last = -Infinity;
  tops.forEach((values, i) => values.forEach((value, j) => {
    if (!shows(value)) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
    first = Math.min(first, series[i].x[j]);
    last = Math.max(last, series[i].x[j]);
  }));
  if (options.stacked || options.fromZero) low = Math.min(0, low);
  if (low === high)
    [low, high] = options.logarithmic ? [low / 2, high * 2] :
                                        [low - Math.abs(low || 1) * 0.5, high + Math.abs(high || 1) * 0.5];
  if (options.logarithmic)
    [low, high] = [low / 1.1, high * 1.1];
  else {
    const room = (high - low) * 0.05;
    high += room;
    if (low !== 0) low -= room;
  }
  if (first === last) [first, last] = [first - 1, last + 1];

  const height = 236, inner = height - margin.top - margin.bottom;
  let toX, toY, fromX, cursor, at = null;

  /// What a curve says where the reader points. One with few points says where the nearest of them is.
  function reading(one) {
    if (at === null) return short(one.y.at(-1));
    if (at < one.x[0] || at > one.x.at(-1)) return '\u2013';
    const i = nearest(one.x, at);
    return short(one.y[i]) + (one.marks && one.x[i] !== at ? ` (at ${grouped(one.x[i])})` : '');
  }

  function showLegend() {
    legend.replaceChildren(
        ...series.map((one) => {
          const key =
              svg('svg', {viewBox: '0 0 20 8', 'aria-hidden': 'true'},
                  options.stacked ? svg('rect', {x: 3, y: 0, width: 14, height: 8, fill: one.colour}) :
                                    svg('line', {
                                      x1: 0,
                                      x2: 20,
                                      y1: 4,
                                      y2: 4,
                                      stroke: one.colour,
                                      'stroke-width': 2.5,
                                      'stroke-dasharray': one.dash
                                    }));
          return html('li', {}, key, one.label + ' ', html('b', {}, reading(one)));
        }),
        html('li', {class: 'at'}, at === null ? 'last' : `at ${options.xTitle || 'step'} ${grouped(at)}`));
  }

  function moveTo(x) {
    at = x;
    cursor.replaceChildren();
    if (x !== null) {
      const place = toX(x);
      cursor.append(
          svg('line', {class: 'cursor', x1: place, x2: place, y1: margin.top, y2: margin.top + inner}));
      series.forEach((one, i) => {
        const j = nearest(one.x, x);
        if (x >= one.x[0] && x <= one.x.at(-1) && shows(tops[i][j]))
          cursor.append(svg('circle', {cx: toX(one.x[j]), cy: toY(tops[i][j]), r: 3, fill: one.colour}));
      });
    }
    showLegend();
  }

  function pathOf(one, i) {
    let text = '', gap = true;
    tops[i].forEach((value, j) => {
      if (!shows(value)) {
        gap = true;
        return;
      }
      text += `${gap ? 'M' : 'L'}${toX(one.x[j]).toFixed(1)} ${toY(value).toFixed(1)}`;
      gap = false;
    });
    return text;
  }

  function areaOf(one, i) {
    const point = (x, y) => `${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
    const top = one.x.map((x, j) => point(x, tops[i][j]));
    const bottom = one.x.map((x, j) => point(x, bottoms[i] ? bottoms[i][j] : 0)).reverse();
    return 'M' + top.concat(bottom).join('L') + 'Z';
  }

  function draw(width) {
    const across = width - margin.left - margin.right;
    toX = (x) => margin.left + (x - first) / (last - first) * across;
    fromX = (place) => first + (place - margin.left) / across * (last - first);
    const share = options.logarithmic ? (y) => Math.log(y / low) / Math.log(high / low) :
                                        (y) => (y - low) / (high - low);
    toY = (y) => margin.top + (1 - share(y)) * inner;
    const picture = svg('svg', {
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: 'img',
      tabindex: 0,
      'aria-label': `${title}${unit ? ', ' + unit : ''}: ${series.length} ${
          series.length === 1 ? 'curve' : 'curves'}. Arrow keys read values.`,
    });
    const foot = margin.top + inner;
    for (const tick of options.logarithmic ? logTicks(low, high) : niceTicks(low, high, 5)) {
      const y = Math.round(toY(tick));
      picture.append(
          svg('line', {class: 'grid', x1: margin.left, x2: width - margin.right, y1: y, y2: y}),
          svg('text', {x: margin.left - 6, y: y + 4, 'text-anchor': 'end'}, short(tick)));
    }
    for (const tick of niceTicks(first, last, Math.max(4, Math.floor(across / 90)))) {
      if (!Number.isInteger(tick)) continue;
      const x = Math.round(toX(tick));
      picture.append(
          svg('line', {class: 'axis', x1: x, x2: x, y1: foot, y2: foot + 4}),
          svg('text', {x, y: foot + 16, 'text-anchor': x > width - 25 ? 'end' : 'middle'}, stepText(tick)));
    }
    picture.append(
        svg('line', {class: 'axis', x1: margin.left, x2: width - margin.right, y1: foot, y2: foot}),
        svg('text', {x: width - margin.right, y: foot + 31, 'text-anchor': 'end'}, options.xTitle || 'step'));
    series.forEach((one, i) => {
      if (options.stacked) {
        picture.append(svg('path', {d: areaOf(one, i), fill: one.colour, 'fill-opacity': 0.85}));
        return;
      }
      picture.append(
          svg('path', {class: 'curve', d: pathOf(one, i), stroke: one.colour, 'stroke-dasharray': one.dash}));
      if ((one.marks && one.x.length <= 60) || tops[i].filter(shows).length === 1)
        one.x.forEach((x, j) => {
          if (shows(tops[i][j]))
            picture.append(svg('circle', {cx: toX(x), cy: toY(tops[i][j]), r: 2.2, fill: one.colour}));
        });
    });
    cursor = svg('g', {});
    picture.append(cursor);
    picture.addEventListener('pointermove', (event) => {
      const place = (event.clientX - picture.getBoundingClientRect().left) * width /
          picture.getBoundingClientRect().width;
      moveTo(longest.x[nearest(longest.x, fromX(place))]);
    });
    picture.addEventListener('pointerleave', () => moveTo(null));
    picture.addEventListener('keydown', (event) => readByKey(event));
    plot.replaceChildren(picture);
    moveTo(at);
  }

  const longest = series.reduce((a, b) => (b.x.length > a.x.length ? b : a));
  function readByKey(event) {
    const end = longest.x.length - 1;
    const now = at === null ? end : nearest(longest.x, at);
    const stride = event.shiftKey ? Math.max(1, Math.round(end / 20)) : 1;
    const next =
        {ArrowLeft: at === null ? end : now - stride, ArrowRight: now + stride, Home: 0, End: end}[event.key];
    if (event.key === 'Escape') moveTo(null);
    if (next === undefined) return;
    event.preventDefault();
    moveTo(longest.x[Math.min(end, Math.max(0, next))]);
    spoken.textContent = `${options.xTitle || 'step'} ${at}: ` +
        series.map((one) => `${one.label} ${reading(one)}`).join(', ');
  }
  showLegend();
  drawToFit(plot, draw);
  return figure;
}

/// At most 40 rows, spread over the longest curve.
function numberTable(title, series, xTitle) {
  const longest = series.reduce((a, b) => (b.x.length > a.x.length ? b : a), {x: []});
  const count = Math.min(40, longest.x.length);
  const rows = [];
  for (let i = 0; i < count; ++i) {
    const x = longest.x[count === 1 ? 0 : Math.round(i * (longest.x.length - 1) / (count - 1))];
    rows.push([grouped(x), ...series.map((one) => short(one.y[nearest(one.x, x)]))]);
  }
  return table(title, [xTitle, ...series.map((one) => one.label)], rows);
}
