// The widget: controls, one panel per method, and one repaint per frame. The other files stand above this one in the
// module that is shipped: rules.js, dense.js, canvas.js, controls.js, scene.js, panel.js.

const STATE = [
  "image", "labels", "methods", "thresholds", "presences", "sim_threshold", "reference", "percentile", "view", "opacity",
  "truth", "parts",
];

/** Draw the explorer into an element; returns what undoes it. */
function mount(model, node) {
  const scene = new Scene(model);
  const state = (name) => model.get(name);
  const bitmaps = new Map();
  const names = model.get("_order");
  const stale = new Set(); // panels to paint in the next frame
  let [queued, timer, pointed, gone, own] = [0, 0, null, false, false];
  const root = el("div", { className: "wsolnb-explorer" });
  const change = (name, value, method = null) => {
    own = true;
    model.set(name, value);
    own = false;
    queue(method === null ? names : [method]);
    clearTimeout(timer);
    timer = setTimeout(() => model.save_changes(), 150);
  };
  const hover = (x, y) => {
    pointed = x === null ? null : [Math.min(Math.max(x, 0), 0.9999), Math.min(Math.max(y, 0), 0.9999)];
    queue();
  };
  const bar = toolbar(scene, state, change);
  const panels = Object.fromEntries(names.map((name) => [name, new Panel(scene, name, change, hover)]));
  const caption = el("p", { className: "we-caption" });
  const grid = el("div", { className: "we-panels" });
  root.append(bar.node, caption, grid);
  node.replaceChildren(root);

  const decode = async (bytes, type) => createImageBitmap(new Blob([bytes], { type }));
  const load = (image) => {
    if (!bitmaps.has(image)) {
      const { jpeg, parts } = scene.pictures[image];
      bitmaps.set(image, null);
      Promise.all([decode(jpeg, "image/jpeg"), parts && decode(parts, "image/png")]).then((pair) => {
        bitmaps.set(image, pair);
        queue();
      }, (error) => fail(node, new Error(`image ${image} cannot be read (${error.message})`)));
    }
    return bitmaps.get(image);
  };
  const paint = () => {
    queued = 0;
    if (gone) return;
    const started = performance.now();
    const image = state("image");
    const pair = load(image);
    if (!pair) return;
    bar.sync();
    const shown = state("methods").map((name) => panels[name]).filter(Boolean);
    if (shown.length !== grid.children.length || shown.some((panel, k) => grid.children[k] !== panel.node)) {
      grid.replaceChildren(...shown.map((panel) => panel.node));
    }
    const there = [...new Set(scene.pictures[image].labels)].map((c) => scene.classes[c] ?? "?");
    caption.textContent = there.length ? `In the image (dashed boxes): ${there.join(", ")}` : "";
    const ink = getComputedStyle(root).color;
    root.found = Object.fromEntries(shown.map((panel) => {
      const known = !stale.has(panel.method) && root.found?.[panel.method];
      return [panel.method, known || panel.paint(...pair, pointed, ink)];
    }));
    stale.clear();
    root.dataset.image = image;
    root.dataset.n = Number(root.dataset.n ?? 0) + 1;
    root.dataset.ms = (performance.now() - started).toFixed(1);
  };
  const guarded = () => {
    try {
      paint();
    } catch (error) {
      fail(node, error);
    }
  };
  const queue = (methods = names) => {
    methods.forEach((name) => stale.add(name));
    queued ||= requestAnimationFrame(guarded);
  };
  const follow = () => own || queue();
  const events = STATE.map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, follow));
  const watch = new ResizeObserver(() => queue());
  watch.observe(root);
  queue();
  return () => {
    gone = true;
    clearTimeout(timer);
    watch.disconnect();
    events.forEach((event) => model.off(event, follow));
  };
}

/** Say what is wrong where the explorer should stand. */
function fail(node, error) {
  console.warn(error);
  node.replaceChildren(el("div", { className: "wsolnb-explorer we-failed", role: "alert" },
    el("b", {}, "The explorer cannot be drawn. "), `${error.message}. Run its cell again, or make the page anew.`));
}

export default {
  render({ model, el: node }) {
    try {
      return mount(model, node);
    } catch (error) {
      fail(node, error);
    }
  },
};
