/**
 * What the TensorBoard page around this frame knows: reloads, dark mode, run colors.
 *
 * TensorBoard talks to a plugin's frame through a MessageChannel, in JSON:
 *     {type, id, payload, error, isReply}
 * and waits for a reply to each of its messages.
 */

// TensorBoard's own, for light and for dark pages, given out in the order of its runs.
const COLORS = {
  light: ["#425066", "#12b5cb", "#e52592", "#f9ab00", "#9334e6", "#7cb342", "#e8710a"],
  dark: ["#8e98a3", "#12b5cb", "#e52592", "#f9ab00", "#9334e6", "#7cb342", "#e8710a"],
};

// TensorBoard gives out its colors again from its eighth run on; ours follow. Each is as
// far as can be (in OKLab) from those before, and has a contrast of 3 to the page.
const MORE = {
  light: [
    "#0000cc", "#990000", "#1177ff", "#006600", "#9977aa", "#550088", "#ee00ff",
    "#886622", "#990077", "#008877", "#ff0033", "#002277", "#550033", "#5522ff",
  ],
  dark: [
    "#ccff00", "#ff99ff", "#1177ff", "#00ffcc", "#ff00ff", "#9999ff", "#ffaaaa",
    "#aa66aa", "#ff0033", "#00ee00", "#bbdd88", "#cc66ff", "#99ccff", "#668855",
  ],
};

/** The page around this frame; this one if it was opened alone. */
function outerBody() {
  try {
    return window.parent.document.body;
  } catch {
    return document.body; // embedded from another origin, as in some notebooks
  }
}

/** Call `reload` whenever TensorBoard has reloaded its data, or found other runs. */
export function onReload(reload) {
  if (window.parent === window) return;
  const channel = new MessageChannel();
  channel.port1.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.isReply) return;
    const reply = {...message, payload: null, error: null, isReply: true};
    channel.port1.postMessage(JSON.stringify(reply));
    const reloads = ["experimental.DataReloaded", "experimental.RunsChanged"];
    if (reloads.includes(message.type)) reload();
  };
  window.parent.postMessage("experimental.bootstrap", "*", [channel.port2]);
}

/** Whether TensorBoard is dark now. */
export function isDark() {
  return outerBody().classList.contains("dark-mode");
}

/** Call `changed` whenever that changes. */
export function onDarkMode(changed) {
  let before = isDark();
  new MutationObserver(() => {
    if (isDark() === before) return;
    before = isDark();
    changed();
  }).observe(outerBody(), {attributes: true, attributeFilter: ["class"]});
}

/** The color of the run at `index` in TensorBoard's list; from the 22nd on they repeat. */
export function runColor(index) {
  const mode = isDark() ? "dark" : "light";
  const colors = [...COLORS[mode], ...MORE[mode]];
  return colors[index % colors.length];
}
