// ---- a photo in a frame: fitted, or at its own pixels; frames of one view move together
const newView = () => ({ is_zoomed: false, x: .5, y: .5, frames: [] });

// Returns { box, inner }: the frame, and what has the place and size of the photo.
function photoFrame(parent, image, view) {
  const box = add(parent, "button", { type: "button", class: "stack", "aria-pressed": "false", "aria-label": `${image.name} at 100 %` });
  const inner = add(box, "span", { class: "photo" });
  const photo = add(inner, "img", { src: image.small, alt: "", draggable: "false" });
  const said = add(parent, "p", { class: "hint", role: "status" });
  const file = new Image();
  file.addEventListener("load", () => { photo.src = file.src; });
  file.addEventListener("error", () => { said.textContent = "This is the small copy: the file is gone, or of a kind that browsers do not show."; });
  file.src = image.link;
  const place = () => {
    const width = image.width || 4, height = image.height || 3, { clientWidth, clientHeight } = box;
    const scale = view.is_zoomed ? 1 / devicePixelRatio : Math.min(clientWidth / width, clientHeight / height, 1);
    const start = (frame, size, at) => size <= frame ? (frame - size) / 2 : Math.max(frame - size, Math.min(0, frame / 2 - at * size));
    inner.style.width = `${width * scale}px`;
    inner.style.height = `${height * scale}px`;
    inner.style.left = `${start(clientWidth, width * scale, view.x)}px`;
    inner.style.top = `${start(clientHeight, height * scale, view.y)}px`;
    box.setAttribute("aria-pressed", String(view.is_zoomed));
  };
  view.frames.push(place);
  const placeAll = () => view.frames.forEach(one => one());
  const moveBy = (right, down) => {
    const { offsetWidth, offsetHeight } = inner, within = (value, frame, size) => size <= frame ? .5 : Math.max(frame / 2 / size, Math.min(1 - frame / 2 / size, value));
    view.x = within(view.x + right / offsetWidth, box.clientWidth, offsetWidth);
    view.y = within(view.y + down / offsetHeight, box.clientHeight, offsetHeight);
    placeAll();
  };
  let from = null, moved = false;
  box.addEventListener("pointerdown", event => { from = [event.clientX, event.clientY]; moved = false; });
  box.addEventListener("pointermove", event => {
    if (!from || !view.is_zoomed || !event.buttons) return;
    const [x, y] = from;
    if (!moved && Math.hypot(event.clientX - x, event.clientY - y) < 4) return;
    if (!moved) box.setPointerCapture(event.pointerId);
    moved = true;
    from = [event.clientX, event.clientY];
    moveBy(x - event.clientX, y - event.clientY);
  });
  box.addEventListener("click", event => {
    from = null;
    if (moved) return;
    const edge = inner.getBoundingClientRect();
    if (!view.is_zoomed && event.detail) { // a mouse or a finger, not a key
      view.x = (event.clientX - edge.left) / edge.width;
      view.y = (event.clientY - edge.top) / edge.height;
    }
    view.is_zoomed = !view.is_zoomed;
    placeAll();
  });
  box.addEventListener("keydown", event => {
    const step = { ArrowRight: [80, 0], ArrowLeft: [-80, 0], ArrowDown: [0, 80], ArrowUp: [0, -80] }[event.key];
    if (!step || !view.is_zoomed) return;
    event.preventDefault();
    event.stopPropagation();
    moveBy(...step);
  });
  new ResizeObserver(place).observe(box);
  return { box, inner };
}

// ---- maps over it
const COLORS = ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"]
  .map(text => [0, 2, 4].map(at => parseInt(text.slice(at, at + 2), 16)));
function color(value) {
  const at = value / 255 * (COLORS.length - 1), low = Math.min(Math.floor(at), COLORS.length - 2);
  return COLORS[low].map((c, i) => c + (COLORS[low + 1][i] - c) * (at - low));
}
function paint(canvas, view, text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  canvas.width = view.columns;
  canvas.height = view.rows;
  const context = canvas.getContext("2d"), pixels = context.createImageData(view.columns, view.rows);
  bytes.forEach((value, i) => pixels.data.set([...color(value), 255], 4 * i));
  context.putImageData(pixels, 0, 0);
}
function maps(parent, inner, view) {
  const canvas = add(inner, "canvas", { hidden: "" });
  const row = add(parent, "div", { class: "row views", role: "group", "aria-label": "what to show" });
  const scale = add(parent, "div", { class: "scale", hidden: "" });
  const low = add(scale, "span"), bar = add(scale, "i"), high = add(scale, "span");
  const button = (place, text, show) => {
    const node = add(place, "button", { type: "button", "aria-pressed": "false" }, text);
    node.addEventListener("click", () => {
      for (const other of row.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === node));
      show();
    });
    return node;
  };
  const overlay = (text, from, to) => () => {
    canvas.hidden = scale.hidden = false;
    paint(canvas, view, text);
    low.textContent = from;
    high.textContent = to;
  };
  button(row, "photo", () => { canvas.hidden = scale.hidden = true; }).setAttribute("aria-pressed", "true");
  button(row, "quality map", overlay(view.map, view.low.toFixed(2), view.high.toFixed(2)));
  if (view.flaw) button(row, view.flaw.name, overlay(view.flaw.map, "not named here", "named firmly"));
  const rest = add(row, "details");
  add(rest, "summary", {}, "more");
  view.attention.forEach((text, i) => button(rest, `query ${i + 1}`, overlay(text, "looks little", "looks closely")));
}
