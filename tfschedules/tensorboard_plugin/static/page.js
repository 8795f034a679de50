/** Pieces of the page. Names of runs and tags only ever become text. */

/** An element with properties (`data-…`, `aria-…` and `role` as attributes) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(data-|aria-|role$|for$)/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** How many of the window's pixels one of an element's is; more than 1 on phones. */
export const zoomOf = (made) => made.currentCSSZoom ?? 1;

/** A mouse's event in the plot's own pixels, of which uPlot takes them to be. */
export const unzoomed = (u, _, handle) => (event) => {
  const zoom = zoomOf(u.over);
  if (zoom === 1) return handle(event);
  const {left, top} = u.over.getBoundingClientRect();
  const {type, button, buttons, movementX, movementY} = event;
  const place = {
    clientX: left + (event.clientX - left) / zoom,
    clientY: top + (event.clientY - top) / zoom,
  };
  return handle(new MouseEvent(type, {...place, button, buttons, movementX, movementY}));
};

/** Give a parent these children; what has the keyboard's focus keeps it. */
export function arrange(parent, children) {
  const now = parent.children;
  if (now.length === children.length && children.every((child, i) => now[i] === child)) return;
  const focused = document.activeElement;
  parent.replaceChildren(...children);
  if (parent.contains(focused)) focused.focus({preventScroll: true});
}

/** A check box with its label. */
export function checkBox(text, checked, changed) {
  const box = element("input", {type: "checkbox", checked});
  box.addEventListener("change", () => changed(box.checked));
  return element("label", {className: "control"}, box, text);
}

/** A choice with its label; `options` are [value, text]. `set` gives it others. */
export function choice(text, changed) {
  const select = element("select");
  select.addEventListener("change", () => changed(select.value));
  const label = element("label", {className: "control"}, `${text} `, select);
  let before = "";
  const set = (options, value) => {
    const now = JSON.stringify(options);
    if (now !== before) {
      select.replaceChildren(
        ...options.map(([key, shown]) => element("option", {value: key}, shown)),
      );
    }
    before = now; // a list that is open stays so
    select.value = value;
  };
  return {label, set};
}

/** A slider from 0 to 0.99 with its label. */
export function slider(text, value, changed) {
  const made = element("input", {type: "range", min: 0, max: 0.99, step: 0.01, value});
  made.addEventListener("input", () => changed(Number(made.value)));
  return element("label", {className: "control"}, `${text} `, made);
}

export function button(text, title, pressed) {
  const made = element("button", {type: "button", title}, text);
  made.addEventListener("click", pressed);
  return made;
}

/** A number as one reads it: 0.08, 1e-7, 12300. */
export function short(value, digits = 4) {
  if (value === null || value === undefined) return "none";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(digits - 1).replace(/\.?0+e\+?/, "e");
  }
  return String(Number(value.toPrecision(digits)));
}
