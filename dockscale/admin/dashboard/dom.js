// Elements. Data becomes text here and nowhere else: no markup is ever made of it.

export function el(tag, attributes = {}, ...children) {
  const it = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") it.addEventListener(name, value);
    else set(it, name, value);
  }
  it.append(...children);
  return it;
}

/** Set an attribute unless it is so already; true is the empty one, false and null are none. */
export function set(it, name, value) {
  if (value === false || value == null) it.removeAttribute(name);
  else if (it.getAttribute(name) !== String(value === true ? "" : value)) it.setAttribute(name, value === true ? "" : value);
}

/** Say a text, unless it is said already: what does not change is not painted, and not read aloud again. */
export function say(it, text) {
  if (it.textContent !== text) it.textContent = text;
}

/** A link to where an app answers. What is no web address stays a text. */
export function link(url) {
  return /^https?:\/\//.test(url) ? el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, url) : url;
}

/** A list of parts, one for each item by its key. `make(item)` gives `{node, show(item)}`; parts that stay are kept. */
export class Parts {
  #parts = new Map();

  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
  }

  show(items, key) {
    const wanted = new Map(items.map((item) => [key(item), item]));
    for (const [name, part] of this.#parts) {
      if (wanted.has(name)) continue;
      part.node.remove();
      this.#parts.delete(name);
    }
    let at = this.parent.firstChild;
    for (const [name, item] of wanted) {
      let part = this.#parts.get(name);
      if (!part) this.#parts.set(name, (part = this.make(item)));
      part.show(item);
      if (part.node === at) at = at.nextSibling;
      else this.parent.insertBefore(part.node, at);
    }
  }
}

/** Call `paint` once before the next frame, however often it is asked for until then. */
export function painter(paint) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      paint();
    });
  };
}
