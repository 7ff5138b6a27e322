"use strict";
// ---- what becomes of each photo: the reader's flag, else what is recommended
const byId = id => document.getElementById(id);
const number = value => value.toLocaleString("en");
const images = data.images.map((image, index) => ({ ...image, index }));
const groups = new Map(); // number of a group -> its photos, best first
for (const image of images) {
  if (image.group === null) continue;
  if (!groups.has(image.group)) groups.set(image.group, []);
  groups.get(image.group).push(image);
}
for (const members of groups.values()) members.sort((a, b) => b.score - a.score);
const alike = image => image.group === null ? [image] : groups.get(image.group);
const isBest = image => alike(image)[0] === image;
const threshold = () => Number(byId("threshold").value);

function decide(image) {
  const flag = picks[image.path]?.flag;
  if (flag) return flag === "P" ? "keep" : "drop";
  if (byId("best").checked && !isBest(image)) return "drop";
  if (image.is_too_small) return "check";
  if (image.score >= threshold()) return "keep";
  return image.score < data.drop ? "drop" : "check";
}
function rank(image) {
  const members = alike(image);
  if (members.length < 2) return "";
  if (image.copy !== image.index) return `the same picture as ${images[image.copy].name}`;
  if (!isBest(image)) return `1 of ${members.length} of the same`;
  const other = members.find(one => one.copy !== image.copy);
  const leads = !other || image.score - other.score >= Math.max(image.chance, other.chance);
  return leads ? `best of ${members.length}` : `best of ${members.length}, but close`;
}

// ---- flags and stars, kept in this browser by the folder of the photos
const STORE = `lifeiqa report ${data.base}`;
let picks = {}; // path -> { flag: "P" or "X", stars: 1 to 5 }
const undos = [];
try {
  picks = JSON.parse(localStorage.getItem(STORE)) ?? {};
} catch { /* a browser that keeps nothing */ }

function pick(image, change) {
  undos.push([image, picks[image.path]]);
  replace(image, { ...picks[image.path], ...change });
}
function undo() {
  if (undos.length) replace(...undos.pop());
}
function replace(image, value) {
  if (value?.flag || value?.stars) picks[image.path] = value;
  else delete picks[image.path];
  try {
    localStorage.setItem(STORE, JSON.stringify(picks));
    byId("said").textContent = "";
  } catch {
    byId("said").textContent = "This browser keeps no flags and stars: export them before you close the page.";
  }
  byId("undo").disabled = !undos.length;
  if (cards.has(image.index)) mark(image);
  for (const box of document.querySelectorAll(`[data-choice="${image.index}"]`)) markChoice(box, image);
  count();
}
// Buttons to flag a photo, and its stars.
function choice(parent, image) {
  const box = add(parent, "span", { class: "choice", "data-choice": image.index });
  for (const [flag, sign, word] of [["P", "\u2713", "keep"], ["X", "\u2715", "drop"]]) {
    const button = add(box, "button", { type: "button", "data-flag": flag, "aria-label": `${word} ${image.name}`, title: `${word} (${flag})` }, sign);
    button.addEventListener("click", () => pick(image, { flag: picks[image.path]?.flag === flag ? undefined : flag }));
  }
  add(box, "small", { class: "stars" });
  markChoice(box, image);
}
function markChoice(box, image) {
  const { flag, stars } = picks[image.path] ?? {};
  for (const button of box.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.flag === flag));
  box.querySelector(".stars").textContent = stars ? "\u2605".repeat(stars) : "";
}
