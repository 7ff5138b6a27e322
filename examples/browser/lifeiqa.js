// Life-IQA in JavaScript: pixels to the working size, exactly as Python does it, and through ONNX Runtime.
// A canvas resizes in another way and in 8 bits, which moves scores by up to .04.

import * as ort from "./ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more need headers that static hosting rarely sends
ort.env.wasm.wasmPaths = new URL(".", import.meta.url).href;

/** Load the network; resolves to {about, score}. */
export async function load() {
  const about = await (await fetch("model.json")).json();
  const externalData = [{ path: about.weights, data: about.weights }];
  const session = await ort.InferenceSession.create(about.graph, { externalData });
  return { about, score: (pixels) => score(session, about, pixels) };
}

/** Score an ImageData, or any {data, width, height} of RGBA: {score, std, distortions: {name: 0 to 1}}. */
async function score(session, about, pixels) {
  const shape = workingShape(pixels.height, pixels.width, about);
  const planes = resize(pixels, ...shape);
  const whole = await run(session, about, planes, shape);
  const size = about.working_size;
  if (!about.detail || Math.min(pixels.height, pixels.width) < 3 * size) return whole;
  const part = cut(pixels, ...findPart(planes, shape, pixels, 2 * size), 2 * size);
  const near = await run(session, about, resize(part, size, size), [size, size]);
  const lost = fall(near, about.detail);
  if (lost > 0) for (const name in about.detail) if (name in whole.distortions)
    whole.distortions[name] = Math.max(whole.distortions[name], near.distortions[name]);
  return { ...whole, detail: near.score, score: Math.max(whole.score - lost, 0) };
}

/** What the network says of planes of a shape. */
async function run(session, about, planes, shape) {
  const found = await session.run({ images: new ort.Tensor("float32", planes, [1, 3, ...shape]) });
  const shares = about.distortions.map((name, i) => [name, found.distortions.data[i]]);
  return { score: found.score.data[0], std: found.std.data[0], distortions: Object.fromEntries(shares) };
}

/** What a nearer look at a large photo takes off its score. */
function fall(near, { offset, ...weights }) {
  const logit = (share) => Math.log(share / (1 - share));
  const shares = { ...near.distortions, score: near.score };
  const terms = Object.entries(weights).map(([name, weight]) => weight * logit(Math.min(Math.max(shares[name], 1e-3), 1 - 1e-3)));
  return Math.max(terms.reduce((sum, term) => sum + term, offset), 0);
}

/** [top, left] of the square of an image that has most detail at its working size. */
function findPart(planes, [rows, columns], { height, width }, side) {
  const gray = (y, x) => (planes[y * columns + x] + planes[(rows + y) * columns + x] + planes[(2 * rows + y) * columns + x]) / 3;
  const edge = (y, x) => Math.abs(gray(y, x) - gray(Math.max(y - 1, 0), x)) + Math.abs(gray(y, x) - gray(y, Math.max(x - 1, 0)));
  const scale = (place, length, newLength) => roundHalfEven(place * (newLength / length));
  let best = [0, 0], most = -1;
  for (const top of offsets(height, side)) for (const left of offsets(width, side)) {
    const y0 = scale(top, height, rows), y1 = Math.min(y0 + scale(side, height, rows), rows);
    const x0 = scale(left, width, columns), x1 = Math.min(x0 + scale(side, width, columns), columns);
    let sum = 0;
    for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) sum += edge(y, x);
    const mean = sum / ((y1 - y0) * (x1 - x0));
    if (mean > most) [best, most] = [[top, left], mean];
  }
  return best;
}

/** Evenly spaced places, from one edge to the other, of the fewest squares that cover an axis. */
function offsets(length, side) {
  const count = Math.min(Math.ceil(length / side), length - side + 1);
  if (count === 1) return [Math.floor((length - side) / 2)];
  return Array.from({ length: count }, (_, i) => roundHalfEven((i * (length - side)) / (count - 1)));
}

function cut({ data, width }, top, left, side) {
  const part = new Uint8ClampedArray(4 * side * side);
  for (let y = 0; y < side; y++) {
    const start = 4 * ((top + y) * width + left);
    part.set(data.subarray(start, start + 4 * side), 4 * side * y);
  }
  return { data: part, width: side, height: side };
}

/** [height, width] at which an image is scored: shorter side within limits, longer one at most 8 times that. */
export function workingShape(height, width, { crop_size, working_size }) {
  const short = Math.min(height, width), long = Math.max(height, width);
  const newShort = Math.min(Math.max(short, crop_size), working_size);
  const newLong = Math.min(Math.max(roundHalfEven((long * newShort) / short), newShort), 8 * newShort);
  return height > width ? [newLong, newShort] : [newShort, newLong];
}

function roundHalfEven(x) {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + (below % 2) : Math.round(x);
}

/** RGBA to planes of red, green and blue in [0, 1], by antialiased bicubic interpolation; transparency lies on white. */
export function resize({ data, width, height }, newHeight, newWidth) {
  const low = new Float32Array(newHeight * width * 3);
  weights(height, newHeight).forEach(([first, row], y) => row.forEach((weight, k) => {
    let from = (first + k) * width * 4, to = y * width * 3;
    for (let x = 0; x < width; x++, from += 4) {
      const alpha = data[from + 3] / 255, white = 255 * (1 - alpha);
      for (let color = 0; color < 3; color++) low[to++] += weight * (data[from + color] * alpha + white);
    }
  }));
  const planes = new Float32Array(3 * newHeight * newWidth);
  weights(width, newWidth).forEach(([first, row], x) => {
    for (let y = 0; y < newHeight; y++) for (let color = 0; color < 3; color++) {
      const sum = row.reduce((total, weight, k) => total + weight * low[(y * width + first + k) * 3 + color], 0);
      planes[(color * newHeight + y) * newWidth + x] = Math.min(Math.max(sum / 255, 0), 1);
    }
  });
  return planes;
}

/** For each place on an axis of newLength: the first place on the old axis that it sees, and all their weights. */
function weights(length, newLength) {
  const scale = length / newLength, stretch = Math.max(scale, 1);
  return Array.from({ length: newLength }, (_, i) => {
    const center = (i + 0.5) * scale - 0.5;
    const first = Math.max(Math.ceil(center - 2 * stretch), 0);
    const last = Math.min(Math.floor(center + 2 * stretch), length - 1);
    const row = Array.from({ length: last - first + 1 }, (_, k) => cubic((first + k - center) / stretch));
    const total = row.reduce((sum, weight) => sum + weight);
    return [first, row.map((weight) => weight / total)];
  });
}

/** Keys's kernel with a = -1/2. */
function cubic(x) {
  x = Math.abs(x);
  return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((2.5 - 0.5 * x) * x - 4) * x + 2 : 0;
}
