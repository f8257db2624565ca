// The rules of multibox.images.resize, to the bit: the pixels of a canvas in, the network's input out.
// (`antialias` changes the width before the height, as Pillow 12 does. Pillow 13 changes the height first for some
// shapes; then a pixel may differ by one.)

/**
 * Plain RGB, one color after the other, in the size of the network's input.
 *
 * @param {Uint8ClampedArray} rgba the pixels of a canvas
 * @param {number} rows height of the canvas
 * @param {number} columns width of the canvas
 * @param {{height: number, width: number, resize: string}} input the network's input, and the rule
 * @returns {Uint8Array | Float32Array} 3 x height x width numbers from 0 to 255; a rule without rounding gives floats
 */
export function prepare(rgba, rows, columns, { height, width, resize }) {
  const rule = { antialias, bilinear, float }[resize];
  const result = resize === "float" ? new Float32Array(3 * height * width) : new Uint8Array(3 * height * width);
  for (let color = 0; color < 3; color += 1) {
    const plane = new Uint8Array(rows * columns);
    for (let place = 0; place < plane.length; place += 1) plane[place] = rgba[4 * place + color];
    result.set(rule(plane, rows, columns, height, width), color * height * width);
  }
  return result;
}

// `antialias` is Pillow's BILINEAR (src/libImaging/Resample.c): a triangle as wide as the new pixel, in whole numbers.

const PRECISION = 22;

function antialias(plane, rows, columns, height, width) {
  return averaged(averaged(plane, rows, columns, width), width, rows, height);
}

/** The lines of a plane with `after` pixels each in place of `before`, and transposed: the result has `after` lines. */
function averaged(plane, lines, before, after) {
  const scale = before / after;
  const support = Math.max(scale, 1);
  const result = new Uint8Array(after * lines);
  for (let place = 0; place < after; place += 1) {
    const center = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), before);
    const weights = [];
    for (let from = first; from < end; from += 1) {
      weights.push(Math.max(1 - Math.abs((from - center + 0.5) / support), 0));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const whole = Int32Array.from(weights, (weight) => Math.trunc((weight / sum) * 2 ** PRECISION + 0.5));
    for (let line = 0; line < lines; line += 1) {
      let value = 2 ** (PRECISION - 1);
      for (let step = 0, from = line * before + first; step < whole.length; step += 1, from += 1) {
        value += plane[from] * whole[step];
      }
      result[place * lines + line] = Math.min(value >> PRECISION, 255);
    }
  }
  return result;
}

// `bilinear` is OpenCV's INTER_LINEAR for 8 bits: weights in whole 2048ths, each step cut off.

function bilinear(plane, rows, columns, height, width) {
  const down = fixedNeighbors(rows, height);
  const along = fixedNeighbors(columns, width).map((one) => (one.first === one.second ? { ...one, to: [2048, 0] } : one));
  const result = new Uint8Array(height * width);
  down.forEach(({ first, second, to }, row) => {
    along.forEach((column, place) => {
      const blend = (line) =>
        (plane[line * columns + column.first] * column.to[0] + plane[line * columns + column.second] * column.to[1]) >> 4;
      const sum = ((blend(first) * to[0]) >> 16) + ((blend(second) * to[1]) >> 16);
      result[row * width + place] = (sum + 2) >> 2;
    });
  });
  return result;
}

function fixedNeighbors(count, wanted) {
  return Array.from({ length: wanted }, (_, number) => {
    const place = Math.fround((number + 0.5) * (1 / (wanted / count)) - 0.5);
    const low = Math.floor(place);
    const weight = Math.fround(place - low);
    const to = [Math.fround(1 - weight), weight].map((each) => roundHalfToEven(each * 2048));
    const inside = (row) => Math.min(Math.max(row, 0), count - 1);
    return { first: inside(low), second: inside(low + 1), to };
  });
}

function roundHalfToEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

// `float` is plain interpolation in 32-bit floats; beyond the edge, the outermost pixels are repeated.

function float(plane, rows, columns, height, width) {
  const f = Math.fround;
  const mix = (one, other, part) => f(f(one * f(1 - part)) + f(other * part));
  const down = floatNeighbors(rows, height);
  const along = floatNeighbors(columns, width);
  const result = new Float32Array(height * width);
  down.forEach((row, line) => {
    along.forEach((column, place) => {
      const at = (side) => mix(plane[row.first * columns + side], plane[row.second * columns + side], row.part);
      result[line * width + place] = mix(at(column.first), at(column.second), column.part);
    });
  });
  return result;
}

function floatNeighbors(count, wanted) {
  const f = Math.fround;
  return Array.from({ length: wanted }, (_, number) => {
    const place = Math.max(f(f(f(number + 0.5) * f(count / wanted)) - 0.5), 0);
    const first = Math.trunc(place);
    return { first, second: Math.min(first + 1, count - 1), part: f(place - first) };
  });
}
