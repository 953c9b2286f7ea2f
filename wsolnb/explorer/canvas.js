// Drawing: heat maps, regions, dense class maps, boxes and histograms on canvases.

/** 256 colours between the given ones, as [red, green, blue, ...]. */
export function heatTable(colours) {
  const stops = colours.map(channels);
  const table = new Uint8ClampedArray(3 * 256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    for (let k = 0; k < 3; k++) table[3 * i + k] = stops[low][k] + (at - low) * (stops[low + 1][k] - stops[low][k]);
  }
  return table;
}

export function channels(colour) {
  return [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  return { canvas, context, pixels: context.createImageData(width, height) };
}

/** The largest of several prepared maps of one size, in heat colours from `low` to `high`. */
export function heatLayer(maps, low, high, table) {
  const { width, height } = maps[0];
  const { canvas, context, pixels } = blank(width, height);
  const scale = high > low ? 255 / (high - low) : 0;
  for (let i = 0; i < width * height; i++) {
    let value = maps[0].values[i];
    for (let k = 1; k < maps.length; k++) value = Math.max(value, maps[k].values[i]);
    const at = 3 * Math.max(0, Math.min(255, Math.round((value - low) * scale)));
    pixels.data.set([table[at], table[at + 1], table[at + 2], 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Darkness over everything that is in none of the masks. */
export function regionLayer(masks, width, height) {
  const { canvas, context, pixels } = blank(width, height);
  const alpha = new Uint32Array(pixels.data.buffer);
  const dark = 0xb4000000; // black, 70 % opaque
  for (let i = 0; i < alpha.length; i++) {
    let inside = 0;
    for (let k = 0; k < masks.length; k++) inside |= masks[k][i];
    alpha[i] = inside ? 0 : dark;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** A dense class map (0 for background) in the colours of the classes. */
export function classLayer(map, width, height, colours) {
  const { canvas, context, pixels } = blank(width, height);
  map.forEach((c, i) => c && pixels.data.set([...channels(colours[c - 1]), 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Fit a canvas to its width on the page and to the shape of the image; returns pixels of the canvas per image pixel. */
export function fit(canvas, [height, width]) {
  const shown = Math.max(canvas.clientWidth, 120) * (window.devicePixelRatio || 1);
  const [w, h] = [Math.round(shown), Math.round((shown * height) / width)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  return w / width;
}

/** A box, dark-edged so that it shows on any ground, with text at its upper left corner. */
export function drawBox(context, box, scale, colour, { text = "", dashed = false } = {}) {
  const [x0, y0, x1, y1] = box.map((v) => v * scale);
  const unit = Math.max(1, (window.devicePixelRatio || 1) * 1.1);
  context.save();
  context.lineJoin = "miter";
  for (const [style, width] of [["#000", 4 * unit], [colour, 2 * unit]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.setLineDash(dashed ? [6 * unit, 4 * unit] : []);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  if (text) {
    context.font = `600 ${11 * unit}px system-ui, sans-serif`;
    const [width, line] = [context.measureText(text).width + 8 * unit, 16 * unit];
    const left = Math.max(0, Math.min(x0, context.canvas.width - width));
    const top = y0 >= line ? y0 - line : Math.max(0, y0);
    context.fillStyle = colour;
    context.fillRect(left, top, width, line);
    context.fillStyle = dark(colour) ? "#fff" : "#000";
    context.fillText(text, left + 4 * unit, top + 12 * unit);
  }
  context.restore();
}

function dark(colour) {
  const [r, g, b] = channels(colour);
  return 0.299 * r + 0.587 * g + 0.114 * b < 140;
}

/** Histograms as outlines on a logarithmic scale, each with the place where its map is cut. */
export function drawHistograms(canvas, series, [low, high], ink) {
  const scale = fit(canvas, [60, 300]);
  const context = canvas.getContext("2d");
  const [width, height] = [canvas.width, canvas.height];
  context.clearRect(0, 0, width, height);
  const most = Math.log1p(Math.max(1, ...series.map(({ counts }) => counts.reduce((a, b) => Math.max(a, b), 0))));
  const place = (value) => (high > low ? ((value - low) / (high - low)) * width : 0);
  for (const { counts, colour, cut } of series) {
    context.strokeStyle = colour;
    context.lineWidth = 1.5 * scale;
    context.setLineDash([]);
    context.beginPath();
    counts.forEach((count, k) => {
      const y = height - 2 - (Math.log1p(count) / most) * (height - 6);
      context.lineTo((k * width) / counts.length, y);
      context.lineTo(((k + 1) * width) / counts.length, y);
    });
    context.stroke();
    if (cut === null) continue;
    context.strokeStyle = ink;
    context.lineWidth = 3.5 * scale;
    for (const style of [ink, colour]) {
      context.strokeStyle = style;
      context.lineWidth = (style === ink ? 3 : 1.6) * scale;
      context.beginPath();
      context.moveTo(place(cut), 0);
      context.lineTo(place(cut), height);
      context.stroke();
    }
  }
}
