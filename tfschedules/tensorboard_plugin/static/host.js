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

/** The color of the run at `index` in TensorBoard's list. */
export function runColor(index) {
  const colors = isDark() ? COLORS.dark : COLORS.light;
  return colors[index % colors.length];
}
