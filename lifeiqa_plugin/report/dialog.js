// ---- one photo, or two side by side
let current = null; // the photo that stands alone in the dialog
let active = null;  // the photo that keys flag there

function openDialog(label, fill) {
  const dialog = byId("dialog");
  dialog.replaceChildren();
  dialog.setAttribute("aria-label", label);
  add(dialog, "button", { type: "button", class: "close" }, "Close").addEventListener("click", () => dialog.close());
  fill(dialog);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
function side(parent, image, view) {
  const box = add(parent, "div", { class: "side" });
  const left = add(box, "div"), facts = add(box, "div", { class: "facts" });
  const { inner } = photoFrame(left, image, view);
  for (const kind of ["focusin", "pointerdown"]) box.addEventListener(kind, () => { active = image; });
  const head = add(facts, "div", { class: "score" }, image.score.toFixed(2));
  choice(head, image);
  add(facts, "h2", {}, image.name);
  add(facts, "p", {}, `${image.sentence}.`);
  const note = image.note ? `Note: ${image.note}. ` : "";
  const about = add(facts, "p", { class: "about" }, `${image.width} x ${image.height} pixels. ${note}`);
  add(about, "a", { href: image.link, target: "_blank", rel: "noreferrer" }, "Open the file");
  if (image.view) maps(facts, inner, image.view);
  else add(facts, "p", { class: "about hint" }, data.no_view);
  return facts;
}
function detail(image) {
  current = active = image;
  openDialog(image.name, dialog => {
    const row = add(dialog, "div", { class: "row" });
    add(row, "button", { type: "button" }, "Previous").addEventListener("click", () => step(-1));
    add(row, "button", { type: "button" }, "Next").addEventListener("click", () => step(1));
    const facts = side(add(dialog, "div", { class: "sides one" }), image, newView());
    const others = alike(image).filter(other => other !== image);
    if (!others.length) return;
    add(facts, "p", {}, "The same, best first:");
    const strip = add(facts, "div", { class: "strip" });
    for (const other of alike(image)) {
      const button = add(strip, "button", { type: "button", "aria-current": String(other === image), "aria-label": other.name });
      add(button, "img", { src: other.small, alt: "" });
      add(button, "small", {}, other.score.toFixed(2));
      button.addEventListener("click", () => detail(other));
    }
    add(facts, "button", { type: "button" }, "Compare with the best of the others").addEventListener("click", () => compare([image, others[0]]));
  });
  byId("dialog").querySelector(".close").focus();
}
function step(by) {
  const at = shown.indexOf(current) + by;
  if (at >= 0 && at < shown.length) detail(shown[at]);
}
function judge(better, worse) {
  if (better.copy === worse.copy) return "This is the same picture twice.";
  const difference = better.score - worse.score, is_same = better.group !== null && better.group === worse.group;
  const doubt = is_same ? Math.max(better.chance, worse.chance) : Math.hypot(better.std ?? 0, worse.std ?? 0);
  const why = is_same ? `two shots of one scene differ by up to ${doubt.toFixed(2)} by chance` : `of different scenes the scores are off by some ${doubt.toFixed(2)}`;
  return difference >= doubt ? `${better.name} is better by ${difference.toFixed(3)}; ${why}.` : `Too close to call: ${difference.toFixed(3)} apart; ${why}.`;
}
function compare([first, second]) {
  current = null;
  const [better, worse] = first.score >= second.score ? [first, second] : [second, first];
  active = better;
  openDialog("two photos side by side", dialog => {
    add(dialog, "p", { id: "verdict" }, judge(better, worse));
    const sides = add(dialog, "div", { class: "sides" }), view = newView();
    for (const image of [better, worse]) side(sides, image, view);
  });
}
byId("dialog").addEventListener("close", () => {
  if (current) cards.get(current.index)?.querySelector(".open").focus();
  current = active = null;
});
function choosePair(image) {
  compared = compared.includes(image) ? compared.filter(other => other !== image) : [...compared, image].slice(-2);
  for (const index of cards.keys()) mark(images[index]);
  const tray = byId("tray");
  tray.replaceChildren();
  tray.hidden = !compared.length;
  for (const other of compared) add(tray, "img", { src: other.small, alt: other.name });
  if (compared.length < 2) add(tray, "span", {}, "choose one more to compare");
  else add(tray, "button", { type: "button", class: "main" }, "Compare").addEventListener("click", () => compare(compared));
  add(tray, "button", { type: "button" }, "Clear").addEventListener("click", () => { compared = [compared[0]]; choosePair(compared[0]); });
}

// ---- keys
const KEYS = [
  ["P, X", "keep or drop the photo, whatever its score"], ["U", "take that back"], ["1 to 5, 0", "stars, none"],
  ["Ctrl + Z", "undo"], ["Enter", "open the photo; again for 100 %"], ["arrows", "next photo; at 100 %, move it"],
  ["C", "choose for comparing"], ["Esc", "close"], ["?", "these keys"],
];
function help() {
  openDialog("keys", dialog => table(dialog, "keys", { header: ["key", "what it does"], rows: KEYS }));
}
document.addEventListener("keydown", event => {
  const cardsNow = [...byId("cards").querySelectorAll(".card")], at = cardsNow.indexOf(document.activeElement.closest(".card"));
  const image = active ?? (at < 0 || byId("dialog").open ? null : shown[at]);
  const key = event.key.toLowerCase();
  if (event.target.matches("[type=search]")) return;
  if ((event.ctrlKey || event.metaKey) && key === "z") undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (key === "?") help();
  else if (image && (key === "p" || key === "x")) pick(image, { flag: event.key.toUpperCase() });
  else if (image && key === "u") pick(image, { flag: undefined });
  else if (image && /^[0-5]$/.test(key)) pick(image, { stars: Number(key) || undefined });
  else if (current && (key === "arrowright" || key === "arrowleft")) step(key === "arrowright" ? 1 : -1);
  else if (at >= 0 && !byId("dialog").open && key === "c") choosePair(image);
  else if (at >= 0 && !byId("dialog").open && key.startsWith("arrow")) move(cardsNow, at, key);
  else return;
  event.preventDefault();
});
function move(all, at, key) {
  const top = all[0].getBoundingClientRect().top;
  const columns = all.findIndex(node => node.getBoundingClientRect().top !== top);
  const by = { arrowright: 1, arrowleft: -1, arrowdown: columns, arrowup: -columns }[key];
  all[Math.max(0, Math.min(all.length - 1, at + by))].querySelector(".open").focus();
}
