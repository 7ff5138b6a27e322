// ---- the page
const [lowest, highest] = range(images.map(image => image.score));
byId("about").textContent = `Scores from ${lowest.toFixed(2)} to ${highest.toFixed(2)}, higher is better.`
  + `${groups.size ? ` ${number(groups.size)} groups of photos show the same.` : ""} Press ? for the keys.`;
const tally = new Map();
for (const image of images) for (const flaw of image.flaws) tally.set(flaw, (tally.get(flaw) ?? 0) + 1);
const kinds = [["", "any flaw or none", images.length], ...[...tally].sort((a, b) => b[1] - a[1]).map(([flaw, many]) => [flaw, flaw, many])];
kinds.push(["none", "no flaw named", images.filter(image => !image.flaws.length).length]);
if (groups.size) kinds.push(["groups", "others of the same", images.filter(image => image.group !== null).length]);
for (const [value, text, many] of kinds) add(byId("kind"), "option", { value }, `${text} (${number(many)})`);
byId("best-label").hidden = !groups.size;
byId("sort").querySelector("[value=groups]").hidden = !groups.size;
const slider = byId("threshold");
[slider.min, slider.max] = data.range;
slider.step = (data.range[1] - data.range[0]) / 100;
slider.value = data.keep;
slider.addEventListener("input", moveLine);
slider.addEventListener("change", () => { if (byId("show").value !== "all") choose(); });
byId("best").addEventListener("change", () => { moveLine(); choose(); });
for (const id of ["show", "kind", "sort", "search"]) byId(id).addEventListener("input", choose);
byId("undo").addEventListener("click", undo);
byId("help").addEventListener("click", help);
if (data.failures.length) {
  add(byId("failed"), "h2", {}, `Not scored: ${number(data.failures.length)}`);
  table(byId("failed"), "failures", { header: ["file", "reason"], rows: data.failures });
}
choose();
redraws.push(() => { histogram(); moveLine(); });
