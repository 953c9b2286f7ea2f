// Runs widgets in a page without a kernel: each gets a model that holds its state, and draws into its own element.

class Model {
  constructor(state) {
    this.state = state;
    this.listeners = new Map();
  }
  get(name) {
    return this.state[name];
  }
  set(name, value) {
    if (typeof name === "object") return Object.entries(name).forEach(([each, of]) => this.set(each, of));
    if (this.state[name] === value) return;
    this.state[name] = value;
    this.emit(`change:${name}`, value);
    this.emit("change");
  }
  emit(event, ...given) {
    [...(this.listeners.get(event) ?? [])].forEach((listener) => listener(...given));
  }
  on(events, listener) {
    events.split(" ").forEach((event) => this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]));
  }
  off(events, listener) {
    if (!events) return this.listeners.clear();
    events.split(" ").forEach((event) => this.listeners.set(event,
      (this.listeners.get(event) ?? []).filter((each) => listener && each !== listener)));
  }
  save_changes() {}
  send() {}
}

/** The state of a widget with its buffers put back where they were. */
function restore({ state, buffers }) {
  for (const { path, data } of buffers ?? []) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const last = path[path.length - 1];
    path.slice(0, -1).reduce((part, key) => part[key], state)[last] = new DataView(bytes.buffer);
  }
  return state;
}

async function start(place) {
  const still = place.innerHTML;
  try {
    const stored = document.getElementById(`wsolnb-state-${place.dataset.afm}`);
    if (!stored) throw new Error("its state is not in this page");
    const state = restore(JSON.parse(stored.textContent));
    const url = URL.createObjectURL(new Blob([state._esm], { type: "text/javascript" }));
    let widget = (await import(url)).default;
    URL.revokeObjectURL(url);
    if (typeof widget === "function") widget = await widget();
    const model = new Model(state);
    place.model = model;
    const style = document.createElement("style");
    style.textContent = state._css ?? "";
    document.head.append(style);
    const signal = new AbortController().signal;
    await widget.initialize?.({ model, signal });
    const node = document.createElement("div");
    place.replaceChildren(node);
    await widget.render({ model, el: node, signal });
  } catch (error) {
    console.warn(error);
    place.innerHTML = still;
    const said = document.createElement("p");
    said.setAttribute("role", "alert");
    said.className = "wsolnb-note";
    said.textContent = `This part of the page cannot be run (${error.message}). What you see is a picture of it.`;
    place.prepend(said);
  }
}

document.querySelectorAll("[data-afm]").forEach(start);
