// Dense class maps as wsolnb/maps.py has them, overlap, histograms, and maps as they are shipped. Pure functions.

/** Maps as they were shipped: 16-bit steps from the lowest to the highest value of each, as float32. */
export function unpack(codes, lows, steps, first, start, cells, classes) {
  return Array.from({ length: classes }, (_, c) => {
    const map = new Float32Array(cells);
    const [low, step] = [lows[first + c], steps[first + c]];
    for (let i = 0; i < cells; i++) map[i] = low + codes[start + c * cells + i] * step;
    return map;
  });
}

/** The most similar class of every cell, the lowest index where classes tie (barz2022 Eq. 7b). */
export function assignedClasses(maps) {
  return maps[0].map((_, i) => {
    let best = 0;
    for (let c = 1; c < maps.length; c++) if (maps[c][i] > maps[best][i]) best = c;
    return best;
  });
}

/** Score of every class: its largest similarity over the cells assigned to it, 0 without a cell (Eq. 8). */
export function classScores(maps, assigned = assignedClasses(maps)) {
  return maps.map((map, c) => {
    let score = -Infinity;
    for (let i = 0; i < map.length; i++) score = Math.max(score, assigned[i] === c ? map[i] : 0);
    return score;
  });
}

/** A class number per cell, 0 for background (Eq. 9): the class is present and the cell is similar enough to it. */
export function denseClassMap(maps, scoreThreshold, simThreshold) {
  const assigned = assignedClasses(maps);
  const present = classScores(maps, assigned).map((score) => score > Math.fround(scoreThreshold));
  const least = Math.fround(simThreshold);
  return assigned.map((c, i) => (present[c] && maps[c][i] > least ? c + 1 : 0));
}

/** IoU of two boxes xyxy, far corners exclusive. */
export function iou(a, b) {
  const across = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const down = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const shared = across * down;
  const union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared;
  return union <= 0 ? 0 : shared / union;
}

/** Counts of values in equal bins from `low` to `high`, both included. */
export function histogram(values, low, high, bins) {
  const counts = new Uint32Array(bins);
  const scale = high > low ? bins / (high - low) : 0;
  for (let i = 0; i < values.length; i++) {
    const bin = Math.floor((values[i] - low) * scale);
    if (bin >= 0) counts[Math.min(bin, bins - 1)]++;
  }
  return counts;
}
