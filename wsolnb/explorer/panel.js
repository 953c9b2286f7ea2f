// One method on the page: its canvas, its sliders, the histogram of what is cut, and its boxes in words.

const BINS = 64;

class Panel {
  constructor(scene, method, change, hover) {
    Object.assign(this, { scene, method, hover });
    const [low, high] = this.range();
    this.canvas = el("canvas", { tabIndex: 0, role: "img", "data-method": method });
    this.values = el("div", { className: "we-values", role: "status", "data-method": method, hidden: true });
    this.threshold = slider("threshold", "threshold", { min: low, max: high, step: (high - low) / 100, method },
      (value) => change("thresholds", { ...scene.model.get("thresholds"), [method]: value }, method));
    this.presence = slider("present above", "presence", { min: 0, max: 1, step: 0.01, method },
      (value) => change("presences", { ...scene.model.get("presences"), [method]: value }, method));
    this.histogram = el("canvas", { className: "we-histogram", role: "img", "data-method": method });
    this.legend = el("ul", { className: "we-legend", "aria-label": `dense class map, ${method}` });
    this.list = el("ul", { className: "we-boxes", "data-method": method, "aria-label": `boxes, ${method}` });
    this.node = el("section", { "aria-label": method }, el("h4", {}, method),
      el("div", { className: "we-stage" }, this.canvas, this.values), this.legend, this.threshold.node,
      this.presence.node, this.histogram, this.list);
    this.canvas.addEventListener("pointermove", (event) => {
      const frame = this.canvas.getBoundingClientRect();
      hover((event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height);
    });
    this.canvas.addEventListener("pointerleave", () => hover(null));
    this.canvas.addEventListener("blur", () => hover(null));
    this.canvas.addEventListener("keydown", (event) => this.walk(event));
  }

  range() {
    const { rules, readings } = this.scene;
    const rule = rules[this.method];
    if (rule.reference !== "absolute" || rule.normalise || rule.quantise) return [0, 1];
    const { lows, steps } = readings[this.method];
    const low = Math.floor(lows.reduce((a, b) => Math.min(a, b)));
    return [Math.min(0, low), Math.max(1, Math.ceil(lows.reduce((a, b, k) => Math.max(a, b + 65535 * steps[k]), 0)))];
  }

  /** Arrow keys move from cell to cell, so that values can be read without a pointer. */
  walk(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") this.hover(null);
    if (!step) return;
    event.preventDefault();
    const { h, w } = this.scene.readings[this.method].places[this.scene.model.get("image")];
    const [x, y] = this.cell ?? [Math.floor(w / 2) - step[0], Math.floor(h / 2) - step[1]];
    const clamp = (v, n) => Math.min(Math.max(v, 0), n - 1);
    this.hover((clamp(x + step[0], w) + 0.5) / w, (clamp(y + step[1], h) + 0.5) / h);
  }

  paint(bitmap, outlines, pointed, ink) {
    const { scene, method } = this;
    const model = scene.model;
    const image = model.get("image");
    const { size, boxes: truth } = scene.pictures[image];
    const reading = scene.readings[method];
    const { h, w } = reading.places[image];
    const rule = scene.rule(method);
    const labels = scene.labels(method, image);
    const maps = labels.map((label) => scene.prepared(method, image, label));
    const scale = fit(this.canvas, size);
    const context = this.canvas.getContext("2d");
    const view = model.get("view");
    const classes = view === "classes" && reading.dense && !reading.agnostic;
    this.legend.hidden = !classes;
    context.drawImage(this.ground([
      image, labels, classes ? [model.get("presences")[method], model.get("sim_threshold")] : 0,
      view === "region" ? [rule.threshold, rule.reference, rule.percentile] : 0, view, model.get("opacity"),
      model.get("truth"), model.get("parts"), this.canvas.width,
    ].join(), (below) => {
      below.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
      this.layer(below, maps, labels, rule, classes);
      if (outlines && model.get("parts")) below.drawImage(outlines, 0, 0, this.canvas.width, this.canvas.height);
      if (model.get("truth")) truth.forEach((box) => drawBox(below, box, scale, "#ffffff", { dashed: true }));
    }), 0, 0);
    const found = scene.found(method, image);
    found.forEach(({ label, score, box }) => {
      const text = scene.name(label) + (score === null ? "" : ` ${score.toFixed(2)}`);
      drawBox(context, box, scale, scene.colour(label), { text });
    });
    this.words(found, truth.length);
    this.threshold.set(model.get("thresholds")[method]);
    this.presence.set(model.get("presences")[method]);
    this.presence.node.hidden = !(scene.scores(method, image) && (classes || !model.get("labels").length));
    this.bars(maps, labels, rule, ink);
    this.cell = pointed && [Math.floor(pointed[0] * w), Math.floor(pointed[1] * h)];
    this.values.hidden = !pointed;
    if (pointed) this.point(context, image, h, w);
    return found;
  }

  /** All that lies below the boxes, drawn anew only when what it depends on has changed. */
  ground(key, draw) {
    this.below ??= document.createElement("canvas");
    if (this.drawn !== key) {
      [this.below.width, this.below.height] = [this.canvas.width, this.canvas.height];
      draw(this.below.getContext("2d"));
      this.drawn = key;
    }
    return this.below;
  }

  layer(context, maps, labels, rule, classes) {
    const { scene, method } = this;
    const model = scene.model;
    const image = model.get("image");
    context.save();
    context.globalAlpha = model.get("opacity");
    context.imageSmoothingEnabled = false;
    let layer = null;
    if (classes) {
      const { h, w } = scene.readings[method].places[image];
      const map = denseClassMap(scene.maps(method, image), model.get("presences")[method], model.get("sim_threshold"));
      const present = [...new Set(map)].filter(Boolean).sort((a, b) => a - b);
      const entries = present.map((c) => el("li", {},
        el("i", { className: "we-swatch", style: `background:${scene.colours[c - 1]}` }), scene.classes[c - 1]));
      this.legend.replaceChildren(...(entries.length ? entries : [el("li", {}, "background only")]));
      layer = classLayer(map, w, h, scene.colours);
    } else if (maps.length && model.get("view") === "region") {
      context.globalAlpha = 1;
      layer = regionLayer(maps.map((map) => foreground(map, rule)), maps[0].width, maps[0].height);
    } else if (maps.length) {
      const [low, high] = this.span(maps);
      layer = scene.of(image).layers[`${method} ${labels}`] ??= heatLayer(maps, low, high, scene.heat);
    }
    if (layer) context.drawImage(layer, 0, 0, context.canvas.width, context.canvas.height);
    context.restore();
  }

  span(maps) {
    const low = Math.min(...maps.map((map) => map.lowest));
    const high = Math.max(...maps.map((map) => map.highest));
    return this.scene.readings[this.method].dense ? [Math.min(low, 0), Math.max(high, 1)] : [low, high];
  }

  bars(maps, labels, rule, ink) {
    const [low, high] = maps.length ? this.span(maps) : [0, 1];
    const series = maps.slice(0, 6).map((map, k) => {
      if (map.binned !== `${low} ${high}`) {
        map.counts = histogram(map.values, low, high, BINS);
        map.binned = `${low} ${high}`;
      }
      return { counts: map.counts, colour: this.scene.colour(labels[k]), cut: limit(map, rule) };
    });
    drawHistograms(this.histogram, series, [low, high], ink);
    this.histogram.setAttribute("aria-label", `histogram of the map from ${low.toFixed(2)} to ${high.toFixed(2)}, ` +
      `cut at ${series.map(({ cut }) => (cut === null ? "nothing" : cut.toFixed(2))).join(", ")}`);
  }

  words(found, known) {
    const { scene, method } = this;
    const lines = found.slice(0, 12).map(({ label, score, box, iou: overlap }) => {
      const said = overlap !== null ? `IoU ${overlap.toFixed(2)}` : known ? "not there" : "";
      const parts = [scene.name(label), score === null ? "" : score.toFixed(2), said].filter(Boolean);
      return el("li", { title: box.map((v) => v.toFixed(1)).join(", ") },
        el("i", { className: "we-swatch", style: `background:${scene.colour(label)}` }), parts.join(" · "));
    });
    if (found.length > 12) lines.push(el("li", {}, `and ${found.length - 12} more boxes`));
    this.list.replaceChildren(...(lines.length ? lines : [el("li", {}, "no box")]));
    this.canvas.setAttribute("aria-label", `${method}: ${found.length} boxes; arrow keys read the values of cells`);
  }

  point(context, image, h, w) {
    const { scene, method } = this;
    const [x, y] = this.cell;
    const { width, height } = context.canvas;
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.strokeRect((x * width) / w, (y * height) / h, width / w, height / h);
    const agnostic = scene.readings[method].agnostic;
    const all = scene.maps(method, image).map((map, c) => [map[y * w + x], agnostic ? -1 : c]);
    const rows = all.sort((a, b) => b[0] - a[0]).slice(0, 30).map(([value, c]) => el("span", {},
      el("i", { className: "we-swatch", style: `background:${scene.colour(c)}` }), `${scene.name(c)} ${value.toFixed(2)}`));
    if (all.length > rows.length) rows.push(el("span", {}, `${all.length - rows.length} classes below`));
    this.values.replaceChildren(el("b", {}, `cell ${y}, ${x}`), ...rows);
  }
}
