// ---- which photos are shown, as cards
const BATCH = 60; // cards that are made at a time
const NEAR = .05; // of the range: so far around the line
const ORDERS = {
  worst: (a, b) => a.score - b.score,
  best: (a, b) => b.score - a.score,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  groups: (a, b) => (a.group ?? Infinity) - (b.group ?? Infinity) || b.score - a.score,
};
const isNear = image => Math.abs(image.score - threshold()) <= NEAR * (data.range[1] - data.range[0]);
let shown = [], made = 0, compared = [];
const cards = new Map(); // index of a photo -> its card, of those made so far

function choose() {
  const show = byId("show").value, kind = byId("kind").value, part = byId("search").value.toLowerCase();
  shown = images.filter(image => image.name.toLowerCase().includes(part)
    && (show === "all" || (show === "line" ? isNear(image) : decide(image) === show))
    && (kind === "" || (kind === "none" ? !image.flaws.length : kind === "groups" ? image.group !== null : image.flaws.includes(kind))));
  shown.sort(ORDERS[byId("sort").value]);
  byId("cards").replaceChildren();
  cards.clear();
  made = 0;
  more(BATCH);
  byId("count").textContent = `${number(shown.length)} of ${number(images.length)} shown`;
  byId("nothing").hidden = shown.length > 0;
  byId("nothing").textContent = part ? `No photo shown has ${JSON.stringify(part)} in its name.` : "No photo is so.";
}
function more(batch) {
  for (const image of shown.slice(made, made + batch)) cards.set(image.index, card(image));
  made = Math.min(made + batch, shown.length);
}
new IntersectionObserver((entries, observer) => {
  if (!entries.at(-1).isIntersecting || made >= shown.length) return; // the last: a busy browser brings several at once
  more(BATCH);
  observer.unobserve(byId("end")); // so that it speaks up again if the end is still in sight
  observer.observe(byId("end"));
}, { rootMargin: "1200px" }).observe(byId("end"));
addEventListener("beforeprint", () => {
  more(shown.length);
  for (const photo of document.querySelectorAll(".card img")) photo.loading = "eager";
});

function card(image) {
  const box = add(byId("cards"), "article", { class: "card" });
  const open = add(box, "button", { type: "button", class: "open", "aria-label": `${image.name}, score ${image.score.toFixed(2)}` });
  add(open, "img", { src: image.small, alt: "", loading: "lazy", decoding: "async" });
  open.addEventListener("click", () => detail(image));
  if (rank(image)) add(box, "span", { class: isBest(image) ? "badge best" : "badge" }, rank(image));
  const line = add(box, "div", { class: "line" });
  add(line, "b", {}, image.score.toFixed(2));
  choice(line, image);
  const both = add(line, "button", { type: "button", class: "both", "aria-label": `compare ${image.name}`, title: "compare (C)" }, "\u21c4");
  both.addEventListener("click", () => choosePair(image));
  add(box, "div", { class: "flaws", title: image.sentence }, image.sentence);
  add(box, "div", { class: "name", title: image.name }, image.name.split("/").pop());
  mark(image, box);
  return box;
}
function mark(image, box = cards.get(image.index)) {
  for (const verdict of ["keep", "check", "drop"]) box.classList.toggle(verdict, decide(image) === verdict);
  box.querySelector(".both").setAttribute("aria-pressed", String(compared.includes(image)));
}

// ---- how many are kept
function count() {
  const counts = { keep: 0, check: 0, drop: 0 };
  for (const image of images) counts[decide(image)]++;
  const flags = Object.values(picks).filter(one => one.flag).length;
  const text = byId("counts");
  text.replaceChildren();
  for (const verdict of ["keep", "check", "drop"]) {
    add(text, "b", {}, number(counts[verdict]));
    text.append(` ${verdict}${verdict === "drop" ? "" : " \u00b7 "}`);
  }
  add(text, "small", {}, ` recommended from ${threshold().toFixed(2)} on${flags ? `, ${number(flags)} by your flags` : ""}`);
  for (const value of ["keep", "check", "drop"]) {
    const option = byId("show").querySelector(`[value=${value}]`);
    option.textContent = `${option.textContent.split(" (")[0]} (${number(counts[value])})`;
  }
}
function moveLine() {
  count();
  for (const index of cards.keys()) mark(images[index]);
  for (const bar of document.querySelectorAll("#histogram rect")) {
    const middle = Number(bar.dataset.middle);
    bar.setAttribute("class", middle >= threshold() ? "keep" : middle < data.drop ? "drop" : "check");
  }
}
function histogram() {
  const box = byId("histogram");
  box.replaceChildren();
  const width = Math.max(280, box.clientWidth), height = width < 500 ? 150 : 180, bins = width < 500 ? 25 : 50;
  const [low, high] = data.range;
  const counts = new Array(bins).fill(0);
  for (const image of images) {
    counts[Math.max(0, Math.min(bins - 1, Math.floor(bins * (image.score - low) / (high - low))))]++;
  }
  const most = Math.max(4, ...counts);
  const x = v => 46 + (width - 54) * (v - low) / (high - low);
  const y = v => height - 38 - (height - 48) * v / most;
  const svg = frame(box, { width, height, xs: ticks(low, high), ys: ticks(0, most, 3).filter(Number.isInteger), xLabel: "score", yLabel: "photos", x, y });
  counts.forEach((count, i) => {
    const from = low + (high - low) * i / bins, to = low + (high - low) * (i + 1) / bins;
    draw(svg, "rect", { x: x(from) + .5, width: Math.max(1, x(to) - x(from) - 1), y: y(count), height: y(0) - y(count), "data-middle": (from + to) / 2 });
  });
  if (data.drop > low) {
    draw(svg, "path", { class: "line", d: `M${x(data.drop)} 4V${height - 38}` });
    draw(svg, "text", { x: x(data.drop) - 5, y: 12, "text-anchor": "end" }, "drop");
  }
}
