// The page around the canvases: native inputs with labels, so that keyboards and screen readers work as they do anywhere.

/** An element with properties (data-* and aria-* as attributes, on* as listeners) and children. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** A labelled slider with its number; `set` writes both. */
export function slider(label, name, { min, max, step, method = "" }, changed) {
  const output = el("output", {});
  const input = el("input", {
    type: "range", min, max, step, "data-name": name, "data-method": method,
    "aria-label": method ? `${label}, ${method}` : label,
    oninput: () => {
      output.textContent = text(input.value);
      changed(Number(input.value));
    },
  });
  const text = (value) => Number(value).toFixed(step < 0.01 ? 3 : 2);
  const set = (value) => {
    if (Number(input.value) !== value) input.value = value;
    output.textContent = text(value);
  };
  return { node: el("label", { className: "we-slider" }, el("span", {}, label), input, output), input, set };
}

export function choice(label, name, options, changed) {
  const input = el("select", { "data-name": name, "aria-label": label, onchange: () => changed(input.value) });
  options.forEach(([value, text]) => input.append(el("option", { value }, text)));
  return { node: el("label", { className: "we-choice" }, el("span", {}, label), input), input };
}

export function tick(label, name, value, changed) {
  const input = el("input", {
    type: "checkbox", value, "data-name": name, "data-value": value, onchange: () => changed(input.checked),
  });
  return { node: el("label", { className: "we-tick" }, input, el("span", {}, label)), input };
}

/** The controls for all methods; `state` reads and `change` writes one entry of the state. */
export function toolbar(scene, state, change) {
  const names = (labels) => [...new Set(labels)].map((c) => scene.classes[c] ?? "?").join(", ");
  const images = scene.pictures.map((p, i) => [i, `${i + 1}${p.labels.length ? ": " + names(p.labels) : ""}`]);
  const image = choice("image", "image", images, (value) => change("image", Number(value)));
  const step = (by) => {
    change("image", (state("image") + by + scene.pictures.length) % scene.pictures.length);
  };
  const back = el("button", { type: "button", "aria-label": "previous image", onclick: () => step(-1) }, "‹");
  const next = el("button", { type: "button", "aria-label": "next image", onclick: () => step(1) }, "›");

  const every = tick("all classes present", "all-classes", "", () => change("labels", []));
  const single = scene.classes.map((name, c) => {
    const one = tick(name, "class", String(c), (on) => {
      const others = state("labels").filter((label) => label !== c);
      change("labels", on ? [...others, c].sort((a, b) => a - b) : others);
    });
    one.node.append(el("i", { className: "we-swatch", style: `background:${scene.colours[c]}` }));
    return one;
  });
  const summary = el("summary", {}, "");
  const list = el("div", { className: "we-list" }, every.node, ...single.map((one) => one.node));
  const classes = el("details", { className: "we-classes", onkeydown: (event) => {
    if (event.key === "Escape") classes.open = false;
  } }, summary, list);

  const method = scene.order.map((name) => [name, tick(name, "method", name, (on) => {
    const wanted = new Set(state("methods"));
    if (on) wanted.add(name);
    else wanted.delete(name);
    change("methods", scene.order.filter((each) => wanted.has(each)));
  })]);
  const views = [["map", "map"], ["region", "above threshold"]];
  if (scene.dense.length) views.push(["classes", "dense class map"]);
  const view = choice("show", "view", views, (value) => change("view", value));
  const references = [["rule", "as the rule says"], ["maximum", "maximum"], ["percentile", "percentile"]];
  const reference = choice("threshold of", "reference", references, (value) => change("reference", value));
  const percentile = el("input", {
    type: "number", min: 1, max: 100, step: 1, "data-name": "percentile", "aria-label": "percentile",
    onchange: () => change("percentile", Math.min(100, Math.max(1, Number(percentile.value) || 90))),
  });
  const unit = { min: 0, max: 1, step: 0.01 };
  const opacity = slider("opacity", "opacity", unit, (value) => change("opacity", value));
  const similar = slider("similar above", "sim_threshold", unit, (value) => change("sim_threshold", value));
  const truth = tick("truth", "truth", "", (on) => change("truth", on));
  const parts = tick("parts", "parts", "", (on) => change("parts", on));

  const first = el("div", { className: "we-row" }, back, image.node, next, classes,
    el("fieldset", {}, el("legend", {}, "methods"), ...method.map(([, one]) => one.node)));
  const second = el("div", { className: "we-row" }, view.node, opacity.node, reference.node, percentile, truth.node);
  if (scene.pictures.some((p) => p.parts)) second.append(parts.node);
  if (scene.dense.length) second.append(similar.node);
  const sync = () => {
    image.input.value = state("image");
    const labels = state("labels");
    every.input.checked = !labels.length;
    single.forEach((one, c) => (one.input.checked = labels.includes(c)));
    summary.textContent = `classes: ${labels.length ? names(labels) : "all present"}`;
    method.forEach(([name, one]) => (one.input.checked = state("methods").includes(name)));
    view.input.value = state("view");
    reference.input.value = state("reference");
    percentile.value = state("percentile");
    percentile.hidden = state("reference") !== "percentile";
    opacity.set(state("opacity"));
    similar.set(state("sim_threshold"));
    truth.input.checked = state("truth");
    parts.input.checked = state("parts");
  };
  return { node: el("div", { className: "we-toolbar", role: "group", "aria-label": "explorer" }, first, second), sync };
}
