// Photos that are dropped or chosen, scored one after the other, best first. Nothing is sent anywhere.

import { load } from "./lifeiqa.js";

const [drop, files, status, gallery, errors] = ["drop", "files", "status", "gallery", "errors"].map(
  (id) => document.getElementById(id),
);
const ready = load();
let queue = ready.then(
  () => (status.textContent = "Ready."),
  (error) => (status.textContent = `The network cannot be loaded: ${error.message}`),
);
let waiting = 0;

files.addEventListener("change", () => add(files.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}

function add(chosen) {
  for (const file of chosen) {
    waiting++;
    queue = queue.then(() => show(file)).finally(() => {
      waiting--;
      status.textContent = waiting ? `${waiting} to go…` : `${gallery.children.length} photos, best first.`;
    });
  }
}

async function show(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const found = await (await ready).score(draw(bitmap, bitmap.width, bitmap.height).pixels());
    insert(card(file.name, found, bitmap), found.score);
    bitmap.close();
  } catch (error) {
    errors.append(element("li", `${file.name}: ${error.message}`));
  }
}

/** Draw an image at a size; .pixels() reads them. */
function draw(bitmap, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
  if (!context) throw new Error("too large for this browser");
  context.fillStyle = "white"; // below what is transparent, of which a canvas forgets the colors
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return { canvas, pixels: () => context.getImageData(0, 0, width, height) };
}

function card(name, { score, std, distortions }, bitmap) {
  const flaws = Object.entries(distortions).filter(([, share]) => share >= 0.5).sort((a, b) => b[1] - a[1]);
  const shrink = Math.min(1, 400 / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * shrink)));
  const item = element("li");
  item.append(
    draw(bitmap, ...size).canvas,
    element("b", score.toFixed(2)),
    element("span", `± ${std.toFixed(2)}`),
    element("span", flaws.map(([flaw]) => flaw).join(", ") || "no flaw found"),
    element("span", name),
  );
  return item;
}

function insert(item, score) {
  item.dataset.score = score;
  gallery.insertBefore(item, [...gallery.children].find((other) => other.dataset.score < score) ?? null);
}

function element(tag, text = "") {
  return Object.assign(document.createElement(tag), { textContent: text });
}
