// ---- files to save: csv, paths, and scripts that move files
const WINDOWS = data.base.includes("\\") || /^[A-Z]:/i.test(data.base);
const SEPARATOR = WINDOWS ? "\\" : "/";
const join = (...parts) => parts.filter(Boolean).join(SEPARATOR);

function saveAndSay(name, text, says) {
  save(name, text);
  byId("said").textContent = says;
}
const paths = verdict => images.filter(image => decide(image) === verdict).map(image => `${join(data.base, image.path)}\n`).join("");
function photosCsv() {
  const rows = images.map(image => [join(data.base, image.path), image.score, decide(image), picks[image.path]?.flag ?? "", picks[image.path]?.stars ?? "", image.sentence]);
  return toCsv([["path", "score", "verdict", "flag", "stars", "sentence"], ...rows]);
}

// A text as one word of bash; bytes of a name that are no UTF-8 come from Python as \udc80 to \udcff.
function quoteBash(text) {
  const byte = code => `'$'\\x${(code - 0xdc00).toString(16)}''`;
  const isByte = code => code >= 0xdc80 && code <= 0xdcff;
  const signs = Array.from(text, sign => isByte(sign.codePointAt(0)) ? byte(sign.codePointAt(0)) : sign === "'" ? "'\\''" : sign);
  return `'${signs.join("")}'`;
}
// A text as one word of PowerShell, for which curly quotes end a text too.
const quotePowerShell = text => `'${text.replace(/['\u2018-\u201b]/g, "$&$&")}'`;

const BASH = `move() { # from, to
  if [ ! -e "$1" ]; then return; fi
  if [ -e "$2" ]; then echo "left where it is, the name is taken: $1" >&2; return; fi
  mkdir -p -- "\${2%/*}" && mv -- "$1" "$2"
}`;
const POWERSHELL = `function Move-Photo($From, $To) {
  if (-not (Test-Path -LiteralPath $From)) { return }
  if (Test-Path -LiteralPath $To) { Write-Warning "left where it is, the name is taken: $From"; return }
  [void][IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($To))
  Move-Item -LiteralPath $From -Destination $To
}`;
// A script that moves photos out of their folder, or back into it: paths are whole, so it may be run anywhere.
function toScript(shell, list, isBack) {
  const quote = shell === "bash" ? quoteBash : quotePowerShell;
  const lines = list.map(image => {
    const both = [join(data.base, image.path), join(data.dropped, image.path)].map(quote);
    return `${shell === "bash" ? "move" : "Move-Photo"} ${(isBack ? both.reverse() : both).join(" ")}`;
  });
  return [...(shell === "bash" ? ["#!/usr/bin/env bash", BASH] : [POWERSHELL]), ...lines, ""].join("\n");
}
function saveScript(isBack) {
  const shell = byId("shell").value, list = isBack ? images : images.filter(image => decide(image) === "drop");
  const mark = shell === "bash" ? "" : "\ufeff"; // without it, Windows PowerShell reads no UTF-8
  const name = `move-${isBack ? "back" : "dropped"}.${shell === "bash" ? "sh" : "ps1"}`;
  saveAndSay(name, mark + toScript(shell, list, isBack), `${name}: run it with ${shell === "bash" ? "bash" : "PowerShell"}. ${isBack ? "It moves back whatever was moved." : `It moves ${number(list.length)} photos.`}`);
}
byId("save-csv").addEventListener("click", () => saveAndSay("photos.csv", photosCsv(), `photos.csv: ${number(images.length)} photos`));
for (const [id, verdict] of [["save-kept", "keep"], ["save-dropped", "drop"]]) {
  byId(id).addEventListener("click", () => saveAndSay(`${verdict}.txt`, paths(verdict), `${verdict}.txt: a path on each line`));
}
byId("save-move").addEventListener("click", () => saveScript(false));
byId("save-back").addEventListener("click", () => saveScript(true));
byId("shell").value = WINDOWS ? "PowerShell" : "bash";
byId("scripts").hidden = !data.base;
byId("where").textContent = data.base ? `Dropped photos go to ${data.dropped}. Nothing is deleted.` : "";
