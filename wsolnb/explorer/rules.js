// Maps to boxes, as wsolnb/boxes.py and wsolnb/components.py do it. Pure functions: no page, no state.
//
// Arithmetic follows PyTorch's CPU kernels in float32: `f` rounds to float32, and f(a * b + c) is a fused multiply-add,
// because a product of two float32 is exact in the float64 of JavaScript. A map is a Float32Array in raster order.

const f = Math.fround;

/** Positions and weights of the cells that make up each of `size` pixels along an axis of `n` cells. */
export function axis(n, size, mode) {
  const scale = f(n / size);
  const taps = mode === "bicubic" ? 4 : mode === "bilinear" ? 2 : 1;
  const cell = new Int32Array(taps * size);
  const weight = new Float32Array(taps * size).fill(1);
  for (let i = 0; i < size; i++) {
    if (taps === 1) {
      cell[i] = Math.min(Math.floor(f(i * scale)), n - 1);
    } else if (taps === 2) {
      const at = Math.max(f(f(scale * f(i + 0.5)) - 0.5), 0);
      const low = Math.min(Math.floor(at), n - 1);
      cell[2 * i] = low;
      cell[2 * i + 1] = Math.min(low + 1, n - 1);
      weight[2 * i + 1] = Math.min(f(at - low), 1);
      weight[2 * i] = f(1 - weight[2 * i + 1]);
    } else {
      const at = f(scale * f(i + 0.5) - 0.5);
      const low = Math.floor(at);
      const part = Math.min(Math.max(f(at - low), 0), 1);
      const rest = f(1 - part);
      const parts = [far(f(part + 1)), near(part), near(rest), far(f(rest + 1))];
      for (let k = 0; k < 4; k++) {
        cell[4 * i + k] = Math.min(Math.max(low - 1 + k, 0), n - 1);
        weight[4 * i + k] = parts[k];
      }
    }
  }
  return { taps, cell, weight };
}

/** Keys' cubic with a = -0.75, for distances up to one cell and from one to two. */
function near(x) {
  return f(f(f(f(1.25 * x - 2.25) * x) * x) + 1);
}

function far(x) {
  return f(f(f(f(-0.75 * x + 3.75) * x - 6) * x) + 3);
}

/** A map of `h` x `w` cells at `height` x `width` pixels: PyTorch's interpolate with align_corners=False. */
export function upsample(map, h, w, height, width, mode) {
  const across = axis(w, width, mode);
  const down = axis(h, height, mode);
  const rows = new Float32Array(h * width);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < width; x++) rows[y * width + x] = mix(map, y * w, 1, across, x);
  }
  const out = new Float32Array(height * width);
  const { taps, cell, weight } = down;
  for (let y = 0; y < height; y++) {
    if (taps === 2) {
      // the common case, without a call per pixel
      const [a, b] = [cell[2 * y] * width, cell[2 * y + 1] * width];
      const [wa, wb] = [weight[2 * y], weight[2 * y + 1]];
      for (let x = 0; x < width; x++) out[y * width + x] = rows[a + x] * wa + f(rows[b + x] * wb);
    } else {
      for (let x = 0; x < width; x++) out[y * width + x] = mix(rows, x, width, down, y);
    }
  }
  return out;
}

function mix(values, start, stride, { taps, cell, weight }, i) {
  const at = taps * i;
  if (taps === 1) return values[start + stride * cell[at]];
  let sum = f(values[start + stride * cell[at]] * weight[at] +
    f(values[start + stride * cell[at + 1]] * weight[at + 1]));
  for (let k = 2; k < taps; k++) sum = f(values[start + stride * cell[at + k]] * weight[at + k] + sum);
  return sum;
}

/** The map stretched to [0, 1]; a constant map becomes zero. */
export function minmax(map) {
  const [low, high] = extent(map);
  const range = f(high - low);
  return map.map((v) => (range > 0 ? f(f(v - low) / range) : 0));
}

export function extent(map) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < map.length; i++) {
    if (map[i] < low) low = map[i];
    if (map[i] > high) high = map[i];
  }
  return [low, high];
}

/** A percentile, linear between ranks; `ordered` is sorted. */
export function percentile(ordered, percent) {
  const place = (percent / 100) * (ordered.length - 1);
  const below = Math.floor(place);
  const part = place - below;
  const low = ordered[below];
  const high = ordered[Math.min(below + 1, ordered.length - 1)];
  return part < 0.5 ? low + (high - low) * part : high - (high - low) * (1 - part);
}

/** Everything of a rule that does not depend on its threshold: the values to cut, and their size. */
export function prepare(map, h, w, size, rule, greys) {
  let values = rule.normalise === "before" ? minmax(map) : map;
  const [height, width] = rule.resize ? size : [h, w];
  if (rule.resize) values = upsample(values, h, w, height, width, rule.resize);
  if (rule.normalise === "after") values = minmax(values);
  if (rule.quantise) {
    const levels = rule.colour_map ? 256 : 255;
    values = values.map((v) => Math.min(Math.floor(Math.min(Math.max(v, 0), 1) * levels), 255));
    if (rule.colour_map) values = values.map((v) => greys[v]);
  }
  const [lowest, highest] = extent(values);
  return { values, height, width, lowest, highest, ordered: null };
}

/** The value that a pixel must exceed (or reach), in the units of the prepared values; null where nothing can. */
export function limit(prepared, rule) {
  const full = rule.quantise ? 255 : 1;
  let cut = rule.threshold * full;
  if (rule.reference !== "absolute") {
    if (!(prepared.highest > 0)) return null;
    let basis = prepared.highest;
    if (rule.reference === "percentile") {
      prepared.ordered ??= prepared.values.slice().sort();
      basis = percentile(prepared.ordered, rule.percentile);
    }
    cut = rule.threshold * basis;
  }
  return rule.quantise ? Math.floor(cut) : f(cut);
}

export function foreground(prepared, rule) {
  const { values } = prepared;
  const mask = new Uint8Array(values.length);
  const cut = limit(prepared, rule);
  if (cut === null) return mask;
  if (rule.strict) for (let i = 0; i < mask.length; i++) mask[i] = values[i] > cut ? 1 : 0;
  else for (let i = 0; i < mask.length; i++) mask[i] = values[i] >= cut ? 1 : 0;
  return mask;
}

/** Components in raster order of their first pixels: rows [x0, y0, x1, y1, pixels, first column]. */
export function components(mask, height, width, eight) {
  const begin = [];
  const end = [];
  const row = [];
  const parent = [];
  const root = (node) => {
    while (parent[node] !== node) node = parent[node] = parent[parent[node]];
    return node;
  };
  const reach = eight ? 1 : 0;
  let [above, aboveEnd] = [0, 0];
  for (let y = 0; y < height; y++) {
    const start = begin.length;
    for (let x = y * width, last = x + width; x < last; x++) {
      if (!mask[x]) continue;
      const first = x;
      while (x < last && mask[x]) x++;
      const run = begin.length;
      const [from, to] = [first - y * width, x - y * width];
      begin.push(from);
      end.push(to);
      row.push(y);
      parent.push(run);
      while (above < aboveEnd && end[above] + reach <= from) above++;
      for (let other = above; other < aboveEnd && begin[other] < to + reach; other++) {
        const [a, b] = [root(other), root(run)];
        parent[Math.max(a, b)] = Math.min(a, b);
      }
    }
    [above, aboveEnd] = [start, begin.length];
  }
  const table = [];
  const number = new Int32Array(begin.length);
  for (let i = 0; i < begin.length; i++) {
    const r = root(i);
    if (r === i) {
      number[i] = table.length;
      table.push([begin[i], row[i], end[i], row[i] + 1, 0, begin[i]]);
    }
    const entry = table[number[r]];
    entry[0] = Math.min(entry[0], begin[i]);
    entry[2] = Math.max(entry[2], end[i]);
    entry[3] = row[i] + 1;
    entry[4] += end[i] - begin[i];
  }
  return table;
}

const ACROSS = [1, 1, 0, -1, -1, -1, 0, 1]; // east, then clockwise
const DOWN = [0, 1, 1, 1, 0, -1, -1, -1];

/** Twice the area of the polygon through the outermost pixel centres of the component that holds (x, y). */
export function twiceContourArea(mask, height, width, x, y) {
  const inside = (u, v) => u >= 0 && v >= 0 && u < width && v < height && mask[v * width + u] !== 0;
  while (inside(x - 1, y)) x--;
  const [x0, y0] = [x, y];
  let [first, area, turn] = [-1, 0, 0];
  for (;;) {
    let step = -1;
    for (let k = 0; k < 8 && step < 0; k++) {
      const way = (turn + k) & 7;
      if (inside(x + ACROSS[way], y + DOWN[way])) step = way;
    }
    if (step < 0) return 0;
    if (x === x0 && y === y0) {
      if (first < 0) first = step;
      else if (step === first) return Math.abs(area);
    }
    area += (2 * (x - x0) + ACROSS[step]) * DOWN[step];
    x += ACROSS[step];
    y += DOWN[step];
    turn = (step + 6 - (step & 1)) & 7;
  }
}

/** Boxes of a mask on its own grid, far corner exclusive. */
export function gridBoxes(mask, height, width, rule) {
  const eight = rule.connectivity === 8;
  const table = components(mask, height, width, eight);
  if (rule.component.startsWith("all")) {
    const holes = rule.component === "all_contours" ? components(mask.map((m) => 1 - m), height, width, !eight) : [];
    const inner = holes.filter(([x0, y0, x1, y1]) => x0 > 0 && y0 > 0 && x1 < width && y1 < height);
    return [...table.map((box) => box.slice(0, 4)), ...inner.map(([a, b, c, d]) => [a - 1, b - 1, c + 1, d + 1])];
  }
  if (!table.length) return [];
  if (rule.component === "extent") {
    const of = (pick, k) => table.reduce((best, box) => pick(best, box[k]), table[0][k]);
    return [[of(Math.min, 0), of(Math.min, 1), of(Math.max, 2), of(Math.max, 3)]];
  }
  let [best, most] = [0, -1];
  table.forEach((box, k) => {
    if (rule.component === "largest") {
      if (box[4] > most) [best, most] = [k, box[4]];
    } else if (2 * (box[2] - box[0] - 1) * (box[3] - box[1] - 1) >= most) {
      const area = twiceContourArea(mask, height, width, box[5], box[1]);
      if (area >= most) [best, most] = [k, area];
    }
  });
  return [table[best].slice(0, 4)];
}

/** Boxes on the grid of the cut, as float32 boxes in the image in the rule's convention. */
export function convert(boxes, [rows, columns], [height, width], rule) {
  if (!boxes.length) {
    if (rule.empty === "none") return [];
    if (Array.isArray(rule.empty)) return [rule.empty.map(f)];
  }
  const missing = !boxes.length;
  const scale = [width / columns, height / rows];
  return (missing ? [[0, 0, width, height]] : boxes).map((box) => {
    const back = rule.far_corner === "last" && !missing ? 1 : 0;
    const out = missing ? box.slice() : box.map((v, k) => (k > 1 ? v - back : v) * scale[k % 2]);
    if (rule.far_corner === "padded_clamped") {
      out[2] = Math.min(out[2], width - 1);
      out[3] = Math.min(out[3], height - 1);
    }
    if (rule.far_corner.startsWith("padded")) {
      out[2] += 1;
      out[3] += 1;
    }
    return out.map(f);
  });
}

/** All boxes that a rule gives for a prepared map of an image of `size` [height, width]. */
export function boxes(prepared, size, rule) {
  const mask = foreground(prepared, rule);
  const found = gridBoxes(mask, prepared.height, prepared.width, rule);
  return convert(found, [prepared.height, prepared.width], size, rule);
}
