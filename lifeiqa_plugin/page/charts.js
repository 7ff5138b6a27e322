"use strict";
// What every page of the package draws with. Text goes into text nodes and attributes only, never into markup.

const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const redraws = []; // functions that lay something out for the width of the window

function make(node, parent, attributes, text) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}
function add(parent, tag, attributes = {}, text) {
  return make(document.createElement(tag), parent, attributes, text);
}
function draw(parent, tag, attributes = {}, text) {
  return make(document.createElementNS("http://www.w3.org/2000/svg", tag), parent, attributes, text);
}

// ---- numbers
const range = values => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);

// Decimals with which values between low and high differ in their third digit.
function decimals(low, high) {
  const extent = Math.abs(high - low) || Math.abs(high) || 1;
  return Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(extent))));
}

// ---- tables: a click on a heading sorts, numbers by value, empty cells last; marks are [row, column, class]
function table(parent, id, { header, rows, marks = [] }) {
  const hint = add(parent, "p", { class: "hint aside", hidden: "" }, "The table goes on to the right: scroll it sideways.");
  const scroll = add(parent, "div", { class: "scroll", tabindex: 0 });
  const node = add(scroll, "table", { id });
  const head = add(add(node, "thead"), "tr");
  const body = add(node, "tbody");
  header.forEach((title, column) => {
    const cell = add(head, "th", { scope: "col" });
    const button = add(cell, "button", { type: "button" }, title);
    button.addEventListener("click", () => sort(column, cell));
  });
  for (const row of rows) {
    const line = add(body, "tr");
    for (const text of row) fill(line, text);
  }
  for (const [row, column, mark] of marks) body.rows[row].cells[column].classList.add(mark);
  redraws.push(() => { hint.hidden = scroll.scrollWidth <= scroll.clientWidth; });

  function fill(line, text) {
    const [, value, interval] = text.match(/^(-?[\d.]+(?:e-?\d+)?) (\(.* to .*\))$/) || [];
    if (value) {
      const cell = add(line, "td", {}, value);
      add(cell, "small", {}, ` ${interval}`);
      return;
    }
    add(line, "td", text.length > 42 ? { class: "long" } : {}, text);
  }
  function sort(column, cell) {
    const down = cell.getAttribute("aria-sort") !== "descending";
    for (const other of head.cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].textContent;
    const lines = [...body.rows];
    const numeric = lines.every(row => key(row) === "" || !isNaN(parseFloat(key(row))));
    const order = numeric ? (x, y) => parseFloat(x) - parseFloat(y) : (x, y) => x.localeCompare(y);
    lines.sort((a, b) => {
      const x = key(a), y = key(b);
      if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
      return (down ? -1 : 1) * order(x, y);
    });
    body.append(...lines);
  }
}

// ---- axes
function ticks(low, high, count = 5) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(k => k * power).find(s => s >= raw);
  const out = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}
function logTicks(low, high) {
  const steps = high / low > 300 ? [1] : [1, 2, 5];
  const out = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
    for (const k of steps) {
      const tick = Number((k * 10 ** e).toPrecision(3));
      if (tick >= low && tick <= high) out.push(tick);
    }
  }
  return out;
}
// Labels with as many decimals as the tick that needs most, except on logarithmic axes, where each has its own.
function labels(values) {
  const needed = values.map(value => (String(value).split(".")[1] || "").length);
  const same = values.length < 3 || Math.abs(values[2] - 2 * values[1] + values[0]) < 1e-9;
  const most = Math.max(0, ...needed);
  return values.map(value => same && most <= 8 ? value.toFixed(most) : String(value));
}
// An empty chart: x and y turn values into pixels, xs and ys are where grid lines stand.
function frame(parent, { width, height, xs, ys, xLabel, yLabel, x, y }) {
  const about = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${yLabel} against ${xLabel}` };
  const svg = draw(parent, "svg", about);
  const xText = labels(xs), yText = labels(ys);
  xs.forEach((value, i) => {
    draw(svg, "path", { class: "grid", d: `M${x(value)} 10V${height - 38}` });
    draw(svg, "text", { x: x(value), y: height - 22, "text-anchor": "middle" }, xText[i]);
  });
  ys.forEach((value, i) => {
    draw(svg, "path", { class: "grid", d: `M46 ${y(value)}H${width - 8}` });
    draw(svg, "text", { x: 40, y: y(value) + 4, "text-anchor": "end" }, yText[i]);
  });
  draw(svg, "text", { x: width - 8, y: height - 5, "text-anchor": "end" }, xLabel);
  draw(svg, "text", { x: 4, y: -4 }, yLabel);
  return svg;
}

// ---- what is below the pointer
function showTip(event, image, text) {
  tip.replaceChildren();
  if (image) add(tip, "img", { src: image, alt: "" });
  add(tip, "span", {}, text);
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4)) + "px";
  tip.style.visibility = "visible";
}
function hideTip() {
  tip.style.visibility = "hidden";
}

// ---- points (x, y) with a curve; describe(i) gives { image, text } of a point for the tip
function scatter(parent, { title, note, points, curve, xLabel, yLabel, describe }) {
  const box = add(parent, "figure", { class: "plot" });
  add(box, "b", {}, title);
  add(box, "small", {}, ` ${note}`);
  const inner = add(box, "div");
  const [xLow, xHigh] = widen(range(points.map(p => p[0])));
  const [yLow, yHigh] = widen(range(points.map(p => p[1])));
  redraws.push(() => {
    inner.replaceChildren();
    const width = Math.max(250, inner.clientWidth), height = width * .8;
    const x = v => 50 + (width - 62) * (v - xLow) / (xHigh - xLow);
    const y = v => height - 40 - (height - 56) * (v - yLow) / (yHigh - yLow);
    const xs = ticks(xLow, xHigh, width / 90), ys = ticks(yLow, yHigh);
    const svg = frame(inner, { width, height, xs, ys, xLabel, yLabel, x, y });
    const at = points.map(([a, b]) => [x(a), y(b)]);
    const dots = at.map(([a, b]) => `M${a.toFixed(1)} ${b.toFixed(1)}h0`).join("");
    draw(svg, "path", { class: "dots", "stroke-width": at.length < 300 ? 7 : 4, d: dots });
    if (curve.length) {
      const line = curve.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L");
      draw(svg, "path", { class: "curve", d: `M${line}` });
    }
    const ring = draw(svg, "circle", { class: "ring", r: 6 });
    const hide = () => { ring.style.visibility = "hidden"; hideTip(); };
    const show = event => {
      const edge = svg.getBoundingClientRect(), scale = width / edge.width;
      const best = nearest(at, (event.clientX - edge.left) * scale, (event.clientY - edge.top) * scale);
      if (best < 0) { hide(); return; }
      ring.setAttribute("cx", at[best][0]);
      ring.setAttribute("cy", at[best][1]);
      ring.style.visibility = "visible";
      const { image, text } = describe(best);
      showTip(event, image, text);
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  });
}
function widen([low, high]) {
  const margin = .03 * (high - low || 1);
  return [low - margin, high + margin];
}
// The point closest to (px, py), or -1 if none is within 14 pixels.
function nearest(at, px, py) {
  let best = -1, distance = 14 ** 2;
  at.forEach(([a, b], i) => {
    const d = (a - px) ** 2 + (b - py) ** 2;
    if (d < distance) { distance = d; best = i; }
  });
  return best;
}

// ---- files to save
function save(name, text) {
  const link = add(document.body, "a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })), download: name, hidden: "" });
  link.click();
  setTimeout(() => { URL.revokeObjectURL(link.href); link.remove(); }, 1000);
}
function toCsv(rows) {
  const cell = value => /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value;
  return rows.map(row => `${row.map(cell).join(",")}\n`).join("");
}

// ---- layout: once the page's own script has run, and whenever the width changes
let lastWidth = 0;
function layOut() {
  if (innerWidth === lastWidth) return;
  lastWidth = innerWidth;
  redraws.forEach(redraw => redraw());
}
addEventListener("DOMContentLoaded", layOut);
addEventListener("resize", layOut);
