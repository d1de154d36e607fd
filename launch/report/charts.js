// Charts of the report, as SVG without a library: lines and areas over steps, and heat maps. Each can be read by
// pointer, touch or arrow keys, and has its numbers as a table.
"use strict";

// ---- elements

function make(space, tag, attributes, children) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {}))
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const html = (tag, attributes, ...children) => make(null, tag, attributes, children);
const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, children);
let identifiers = 0;
const newId = () => "id" + ++identifiers;

// ---- numbers as text

function withUnit(value, base, units) {
  let unit = 0;
  let rest = Math.abs(value);
  while (rest >= base * 0.9995 && unit + 1 < units.length) {
    rest /= base;
    ++unit;
  }
  const digits = unit === 0 && Number.isInteger(rest) ? 0 : rest < 9.995 ? 2 : rest < 99.95 ? 1 : 0;
  return (value < 0 ? "-" : "") + rest.toFixed(digits) + (units[unit] ? " " + units[unit] : "");
}
const grouped = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/// A number as short as four digits allow.
function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e4 && size < 1e5) return grouped(value);
  if (size >= 1e5) return withUnit(value, 1000, ["", "k", "M", "G", "T", "P", "E"]);
  if (size < 1e-3) return value.toExponential(2).replace("e-", "e\u2212");
  return String(Number(value.toPrecision(4)));
}

function duration(seconds) {
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const whole = Math.round(seconds);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => whole >= size);
  return parts.slice(first, first + 2).map(([size, unit], i) =>
    Math.floor((i === 0 ? whole : whole % parts[first][0]) / size) + " " + unit).join(" ");
}

function valueText(value, unit) {
  if (typeof value !== "number") return value === null ? "none" : String(value);
  if (unit === "bytes") return withUnit(value, 1000, ["B", "kB", "MB", "GB", "TB", "PB", "EB"]);
  if (unit === "seconds") return duration(value);
  if (unit === "count") return value < 1e12 ? grouped(value) : short(value);
  if (unit === "nats") return value.toFixed(4) + " nats";
  return short(value);
}

// ---- tables

/// Rows of cells; the first cell of a row is its heading.
function table(caption, headings, rows, kind) {
  const head = headings ? html("thead", {}, html("tr", {}, ...headings.map((text) => html("th", {scope: "col"}, text)))) : null;
  const body = html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((cell, i) =>
    i === 0 ? html("th", {scope: "row"}, String(cell)) : html("td", {}, String(cell))))));
  // What scrolls must be reachable by keyboard.
  return html("div", {class: "table" + (kind ? " " + kind : ""), tabindex: 0, role: "group", "aria-label": caption || "Table"},
    html("table", {}, caption ? html("caption", {}, caption) : null, head, body));
}

/// A table that is built when it is opened.
function numbers(build) {
  const details = html("details", {}, html("summary", {}, "Numbers"));
  details.addEventListener("toggle", () => {
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
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push(Number((i * step).toPrecision(12)));
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
    if (numbers[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - numbers[low - 1] <= numbers[low] - x ? low - 1 : low;
}

const colour = (i) => `var(--c${i % 8})`;
const dash = (i) => [null, "5 3", "1.5 2.5", "8 3 2 3"][Math.floor(i / 8) % 4];
const margin = {left: 54, right: 10, top: 8, bottom: 36};

/// Calls draw(width) as soon as the element has a width, and whenever it changes.
function drawToFit(element, draw) {
  let width = 0;
  new ResizeObserver(() => requestAnimationFrame(() => {
    if (element.clientWidth === width || element.clientWidth === 0) return;
    width = element.clientWidth;
    draw(width);
  })).observe(element);
}

// ---- lines and areas

/// options: title, unit, series [{label, x, y, colour, dash, marks}], and perhaps logarithmic, fromZero, stacked (areas
/// over the same x), xTitle.
function lineChart(options) {
  const {title, unit} = options;
  const series = options.series.filter((one) => one.x.length > 0);
  const plot = html("div", {class: "plot"});
  const legend = html("ul", {class: "legend"});
  const spoken = html("span", {class: "hidden", role: "status"});
  const figure = html("figure", {class: "chart"},
    html("figcaption", {}, html("span", {}, title), html("span", {class: "unit"}, unit || "")), legend, plot, spoken,
    numbers(() => numberTable(options.title, series, options.xTitle || "step")));
  const shows = (value) => value !== null && Number.isFinite(value) && !(options.logarithmic && value <= 0);
  if (!series.some((one) => one.y.some(shows))) {
    plot.append(html("p", {class: "quiet"}, "Nothing was logged."));
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
  if (low === high) [low, high] = options.logarithmic ? [low / 2, high * 2] : [low - Math.abs(low || 1) * 0.5, high + Math.abs(high || 1) * 0.5];
  if (options.logarithmic) [low, high] = [low / 1.1, high * 1.1];
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
    if (at < one.x[0] || at > one.x.at(-1)) return "\u2013";
    const i = nearest(one.x, at);
    return short(one.y[i]) + (one.marks && one.x[i] !== at ? ` (at ${grouped(one.x[i])})` : "");
  }

  function showLegend() {
    legend.replaceChildren(...series.map((one) => {
      const key = svg("svg", {viewBox: "0 0 20 8", "aria-hidden": "true"}, options.stacked
        ? svg("rect", {x: 3, y: 0, width: 14, height: 8, fill: one.colour})
        : svg("line", {x1: 0, x2: 20, y1: 4, y2: 4, stroke: one.colour, "stroke-width": 2.5, "stroke-dasharray": one.dash}));
      return html("li", {}, key, one.label + " ", html("b", {}, reading(one)));
    }), html("li", {class: "at"}, at === null ? "last" : `at ${options.xTitle || "step"} ${grouped(at)}`));
  }

  function moveTo(x) {
    at = x;
    cursor.replaceChildren();
    if (x !== null) {
      const place = toX(x);
      cursor.append(svg("line", {class: "cursor", x1: place, x2: place, y1: margin.top, y2: margin.top + inner}));
      series.forEach((one, i) => {
        const j = nearest(one.x, x);
        if (x >= one.x[0] && x <= one.x.at(-1) && shows(tops[i][j])) cursor.append(svg("circle", {cx: toX(one.x[j]), cy: toY(tops[i][j]), r: 3, fill: one.colour}));
      });
    }
    showLegend();
  }

  function pathOf(one, i) {
    let text = "", gap = true;
    tops[i].forEach((value, j) => {
      if (!shows(value)) { gap = true; return; }
      text += `${gap ? "M" : "L"}${toX(one.x[j]).toFixed(1)} ${toY(value).toFixed(1)}`;
      gap = false;
    });
    return text;
  }

  function areaOf(one, i) {
    const point = (x, y) => `${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
    const top = one.x.map((x, j) => point(x, tops[i][j]));
    const bottom = one.x.map((x, j) => point(x, bottoms[i] ? bottoms[i][j] : 0)).reverse();
    return "M" + top.concat(bottom).join("L") + "Z";
  }

  function draw(width) {
    const across = width - margin.left - margin.right;
    toX = (x) => margin.left + (x - first) / (last - first) * across;
    fromX = (place) => first + (place - margin.left) / across * (last - first);
    const share = options.logarithmic ? (y) => Math.log(y / low) / Math.log(high / low) : (y) => (y - low) / (high - low);
    toY = (y) => margin.top + (1 - share(y)) * inner;
    const picture = svg("svg", {
      height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
      "aria-label": `${title}${unit ? ", " + unit : ""}: ${series.length} ${series.length === 1 ? "curve" : "curves"}. Arrow keys read values.`,
    });
    const foot = margin.top + inner;
    for (const tick of options.logarithmic ? logTicks(low, high) : niceTicks(low, high, 5)) {
      const y = Math.round(toY(tick));
      picture.append(svg("line", {class: "grid", x1: margin.left, x2: width - margin.right, y1: y, y2: y}),
        svg("text", {x: margin.left - 6, y: y + 4, "text-anchor": "end"}, short(tick)));
    }
    for (const tick of niceTicks(first, last, Math.max(4, Math.floor(across / 90)))) {
      if (!Number.isInteger(tick)) continue;
      const x = Math.round(toX(tick));
      picture.append(svg("line", {class: "axis", x1: x, x2: x, y1: foot, y2: foot + 4}),
        svg("text", {x, y: foot + 16, "text-anchor": "middle"}, tick >= 1e5 ? short(tick) : grouped(tick)));
    }
    picture.append(svg("line", {class: "axis", x1: margin.left, x2: width - margin.right, y1: foot, y2: foot}),
      svg("text", {x: width - margin.right, y: foot + 31, "text-anchor": "end"}, options.xTitle || "step"));
    series.forEach((one, i) => {
      if (options.stacked) {
        picture.append(svg("path", {d: areaOf(one, i), fill: one.colour, "fill-opacity": 0.85}));
        return;
      }
      picture.append(svg("path", {class: "curve", d: pathOf(one, i), stroke: one.colour, "stroke-dasharray": one.dash}));
      if (one.marks || tops[i].filter(shows).length === 1)
        one.x.forEach((x, j) => {
          if (shows(tops[i][j])) picture.append(svg("circle", {cx: toX(x), cy: toY(tops[i][j]), r: 2.2, fill: one.colour}));
        });
    });
    cursor = svg("g", {});
    picture.append(cursor);
    picture.addEventListener("pointermove", (event) => {
      const place = (event.clientX - picture.getBoundingClientRect().left) * width / picture.getBoundingClientRect().width;
      moveTo(longest.x[nearest(longest.x, fromX(place))]);
    });
    picture.addEventListener("pointerleave", () => moveTo(null));
    picture.addEventListener("keydown", (event) => readByKey(event));
    plot.replaceChildren(picture);
    moveTo(at);
  }

  const longest = series.reduce((a, b) => (b.x.length > a.x.length ? b : a));
  function readByKey(event) {
    const end = longest.x.length - 1;
    const now = at === null ? end : nearest(longest.x, at);
    const stride = event.shiftKey ? Math.max(1, Math.round(end / 20)) : 1;
    const next = {ArrowLeft: at === null ? end : now - stride, ArrowRight: now + stride, Home: 0, End: end}[event.key];
    if (event.key === "Escape") moveTo(null);
    if (next === undefined) return;
    event.preventDefault();
    moveTo(longest.x[Math.min(end, Math.max(0, next))]);
    spoken.textContent = `${options.xTitle || "step"} ${at}: ` +
      series.map((one) => `${one.label} ${reading(one)}`).join(", ");
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

// ---- heat maps

/// viridis, as framework/telemetry/tensorboard/picture.cpp has it.
const viridis = [[68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37]];
function heat(share) {
  const place = Math.min(1, Math.max(0, share)) * (viridis.length - 1);
  const below = Math.min(Math.floor(place), viridis.length - 2);
  return viridis[below].map((low, i) => Math.round(low + (place - below) * (viridis[below + 1][i] - low)));
}

/// The bar that says what colours mean: loads as multiples of the even share.
function heatScale(high) {
  const stops = viridis.map(([r, g, b]) => `rgb(${r} ${g} ${b})`).join(", ");
  return html("p", {class: "scale"}, "no token", html("i", {style: `background: linear-gradient(to right, ${stops})`}),
    `${high} times the even share, or more (1 is even)`);
}

/// options: title, rows and columns (labels), rowTitle, columnTitle, high; perhaps ticks(count), which gives pairs of a
/// column and its label in place of every n-th column's. values[row][column] are given to show().
/// Returns {figure, show(values, note)}.
function heatMap(options) {
  const plot = html("div", {class: "plot"});
  const note = html("span", {class: "unit"});
  const readout = html("p", {class: "readout", role: "status"});
  let values = [], width = 0, cell = null;
  const {rows, columns} = options;
  const figure = html("figure", {class: "heat-map"}, html("figcaption", {}, html("span", {}, options.title), note), plot, readout,
    numbers(() => table(options.title, [`${options.rowTitle} \\ ${options.columnTitle}`, ...sample(columns.length).map((c) => columns[c])],
      rows.map((label, r) => [label, ...sample(columns.length).map((c) => (values[r][c] / 1000).toFixed(2))]))));
  const sample = (count) => count <= 64 ? [...Array(count).keys()] : [...Array(24).keys()].map((i) => Math.round(i * (count - 1) / 23));

  function image() {
    const canvas = html("canvas", {width: columns.length, height: rows.length});
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns.length, rows.length);
    values.forEach((row, r) => row.forEach((value, c) =>
      pixels.data.set([...heat(value / 1000 / options.high), 255], 4 * (r * columns.length + c))));
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  function draw() {
    if (width === 0 || values.length === 0) return;
    const left = Math.min(110, 22 + 6.4 * Math.max(...rows.map((label) => String(label).length)) + 12);
    const size = Math.max(rows.length <= 10 ? 18 : 6, Math.min(22, 300 / rows.length));
    const inner = Math.round(Math.min(440, size * rows.length)), height = inner + margin.top + margin.bottom;
    const across = width - left - margin.right, foot = margin.top + inner;
    const picture = svg("svg", {height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
      "aria-label": `${options.title}: ${rows.length} by ${columns.length} cells. Arrow keys read them.`});
    picture.append(svg("image", {href: image(), x: left, y: margin.top, width: across, height: inner,
      preserveAspectRatio: "none", style: "image-rendering: pixelated"}));
    const every = Math.ceil(rows.length / Math.max(1, inner / 13));
    rows.forEach((label, r) => {
      if (r % every !== 0) return;
      const text = String(label);
      picture.append(svg("text", {x: left - 6, y: margin.top + (r + 0.5) * inner / rows.length + 4, "text-anchor": "end"},
        text.length > 14 ? text.slice(0, 13) + "\u2026" : text));
    });
    const wanted = Math.max(2, Math.floor(across / (12 + 7 * Math.max(...columns.map((label) => String(label).length)))));
    const stride = Math.ceil(columns.length / wanted);
    const ticks = options.ticks ? options.ticks(wanted) : columns.map((label, c) => [c, label]).filter(([c]) => c % stride === 0);
    for (const [c, label] of ticks)
      picture.append(svg("text", {x: left + (c + 0.5) * across / columns.length, y: foot + 15, "text-anchor": "middle"}, String(label)));
    picture.append(svg("text", {x: width - margin.right, y: foot + 31, "text-anchor": "end"}, options.columnTitle),
      svg("text", {x: 10, y: margin.top + inner / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${margin.top + inner / 2})`}, options.rowTitle));
    const marker = svg("g", {});
    picture.append(marker);

    const place = () => {
      marker.replaceChildren();
      if (cell === null) {
        readout.textContent = "Point at a cell, or use the arrow keys, to read it.";
        return;
      }
      const [r, c] = cell;
      const box = {x: left + c * across / columns.length, y: margin.top + r * inner / rows.length,
        width: across / columns.length, height: inner / rows.length};
      marker.append(svg("rect", {class: "cell", ...box}), svg("rect", {class: "cell-edge", ...box}));
      readout.textContent = options.describe(r, c, (values[r][c] / 1000).toFixed(2));
    };
    picture.addEventListener("pointermove", (event) => {
      const frame = picture.getBoundingClientRect(), ratio = width / frame.width;
      const c = Math.floor(((event.clientX - frame.left) * ratio - left) / across * columns.length);
      const r = Math.floor(((event.clientY - frame.top) * ratio - margin.top) / inner * rows.length);
      cell = c >= 0 && c < columns.length && r >= 0 && r < rows.length ? [r, c] : null;
      place();
    });
    picture.addEventListener("pointerleave", () => { cell = null; place(); });
    picture.addEventListener("keydown", (event) => {
      const move = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
      if (event.key === "Escape") { cell = null; place(); }
      if (!move) return;
      event.preventDefault();
      const [r, c] = cell || [0, 0];
      cell = cell === null ? [0, 0] : [Math.min(rows.length - 1, Math.max(0, r + move[0])), Math.min(columns.length - 1, Math.max(0, c + move[1]))];
      place();
    });
    plot.replaceChildren(picture);
    place();
  }
  drawToFit(plot, (now) => { width = now; draw(); });
  return {figure, show(newValues, text) { values = newValues; note.textContent = text; draw(); }};
}
