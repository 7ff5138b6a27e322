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
  const images = new ort.Tensor("float32", resize(pixels, ...shape), [1, 3, ...shape]);
  const found = await session.run({ images });
  const shares = about.distortions.map((name, i) => [name, found.distortions.data[i]]);
  return { score: found.score.data[0], std: found.std.data[0], distortions: Object.fromEntries(shares) };
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
