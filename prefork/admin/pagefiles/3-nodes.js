// Nodes: the only ways in which this page changes its document. Nodes stay, and only what differs is written, so focus,
// selection and open details survive; and text is text, so nothing that a client sent is ever read as HTML.

const byId = (id) => document.getElementById(id);

// Return a copy of a template, with its named parts.
function made(template) {
  const node = byId(`${template}-template`).content.firstElementChild.cloneNode(true);
  const parts = { node };
  for (const part of node.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return parts;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function setIcon(node, name) {
  setAttribute(node, "href", `#icon-${name}`);
}

function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

function setClass(node, name, on) {
  if (node.classList.contains(name) !== on) node.classList.toggle(name, on);
}

// What should be unique is made so: a key that comes twice must not break the page.
function unique(keys) {
  const seen = new Set();
  return keys.map((key) => {
    while (seen.has(key)) key = `${key}'`;
    seen.add(key);
    return key;
  });
}

// Make the children of a list those of `items`, each known by its key. What is gone is removed first: then the rest is in
// its place already, as a rule, and a node that is not moved keeps its focus.
class List {
  constructor(parent, template, update) {
    this.parent = parent;
    this.template = template;
    this.update = update;
    this.parts = new Map();
  }

  show(items, key) {
    const keys = unique(items.map(key));
    const wanted = new Set(keys);
    for (const [old, parts] of this.parts) {
      if (!wanted.has(old)) {
        parts.node.remove();
        this.parts.delete(old);
      }
    }
    let next = this.parent.firstElementChild;
    items.forEach((item, i) => {
      let parts = this.parts.get(keys[i]);
      if (!parts) {
        parts = typeof this.template === "string" ? made(this.template) : this.template(item);
        this.parts.set(keys[i], parts);
      }
      if (parts.node === next) next = next.nextElementSibling;
      else this.parent.insertBefore(parts.node, next);
      this.update(parts, item);
    });
  }
}
