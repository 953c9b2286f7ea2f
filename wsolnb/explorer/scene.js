// What was shipped, decoded as it is needed, and what the state makes of it: rules, classes shown, boxes.

const ANY_COLOUR = "#3fd0ff"; // of what belongs to no class; as in colours.py
const KEPT = 4; // images whose maps stay enlarged

function typed(view, Type) {
  if (!view) return null;
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

/** Everything that was shipped, decoded as it is needed; raises where it does not fit together. */
class Scene {
  constructor(model) {
    this.model = model;
    this.pictures = model.get("_pictures");
    this.classes = model.get("_classes");
    this.colours = model.get("_colours");
    this.rules = model.get("_rules");
    this.greys = model.get("_greys");
    this.heat = heatTable(model.get("_heat"));
    this.readings = {};
    this.kept = new Map();
    if (!this.pictures?.length) throw new Error("it holds no images");
    this.order = model.get("_order");
    for (const name of this.order) {
      const packed = model.get("_readings")[name];
      const codes = typed(packed.codes, Uint16Array);
      let [cells, rows] = [0, 0];
      const places = packed.shapes.map(([c, h, w]) => {
        const place = { c, h, w, cells, rows };
        [cells, rows] = [cells + c * h * w, rows + c];
        return place;
      });
      if (codes?.length !== cells || places.length !== this.pictures.length) {
        throw new Error(`the maps of ${name} are incomplete: ${codes?.length} of ${cells} values, ` +
          `${places.length} of ${this.pictures.length} images`);
      }
      const [lows, steps] = [typed(packed.lows, Float64Array), typed(packed.steps, Float64Array)];
      const scores = typed(packed.scores, Float32Array);
      this.readings[name] = { ...packed, codes, lows, steps, scores, places };
    }
    this.dense = this.order.filter((name) => this.readings[name].dense);
  }

  /** What was computed for an image; the oldest of a few is forgotten. */
  of(image) {
    if (!this.kept.has(image)) {
      if (this.kept.size >= KEPT) this.kept.delete(this.kept.keys().next().value);
      this.kept.set(image, { maps: {}, prepared: {}, scores: {}, layers: {} });
    }
    return this.kept.get(image);
  }

  maps(method, image) {
    const { codes, lows, steps, places } = this.readings[method];
    const { c, h, w, cells, rows } = places[image];
    return (this.of(image).maps[method] ??= unpack(codes, lows, steps, rows, cells, h * w, c));
  }

  prepared(method, image, label) {
    const { h, w } = this.readings[method].places[image];
    const map = this.maps(method, image)[Math.max(label, 0)];
    return (this.of(image).prepared[`${method} ${label}`] ??=
      prepare(map, h, w, this.pictures[image].size, this.rules[method], this.greys));
  }

  scores(method, image) {
    const { dense, agnostic, scores, places } = this.readings[method];
    if (dense && !agnostic) return (this.of(image).scores[method] ??= classScores(this.maps(method, image)));
    const { c } = places[image];
    return scores && Array.from(scores.subarray(image * c, (image + 1) * c));
  }

  rule(method) {
    const rule = { ...this.rules[method], threshold: this.model.get("thresholds")[method] };
    const reference = this.model.get("reference");
    if (reference === "rule") return rule;
    return { ...rule, reference, percentile: reference === "percentile" ? this.model.get("percentile") : 0 };
  }

  /** Classes that a method shows: see state.py. */
  labels(method, image) {
    if (this.readings[method].agnostic) return [-1];
    const chosen = this.model.get("labels");
    if (chosen.length) return [...chosen].sort((a, b) => a - b);
    const scores = this.scores(method, image);
    const least = Math.fround(this.model.get("presences")[method]);
    if (scores) return scores.map((_, c) => c).filter((c) => scores[c] > least);
    const truth = [...new Set(this.pictures[image].labels)].sort((a, b) => a - b);
    return truth.length ? truth : this.classes.map((_, c) => c);
  }

  /** Boxes with label, score and IoU with the best true box of the class (null where it is not there). */
  found(method, image) {
    const { size, boxes: truth, labels } = this.pictures[image];
    const [rule, scores] = [this.rule(method), this.scores(method, image)];
    return this.labels(method, image).flatMap((label) =>
      boxes(this.prepared(method, image, label), size, rule).map((box) => {
        const same = truth.filter((_, i) => label < 0 || labels[i] === label);
        const best = same.length ? Math.max(...same.map((other) => iou(box, other))) : null;
        return { label, score: scores?.[label] ?? null, box, iou: best };
      }));
  }

  colour(label) {
    return label < 0 ? ANY_COLOUR : this.colours[label];
  }

  name(label) {
    return label < 0 ? "any class" : this.classes[label];
  }
}
