/** Names of runs without what all of them have in common. */

const LONG = 24; // letters: of longer names words in common are left out, too

/** How many parts all lists begin with, where each keeps one of its own. */
function common(lists) {
  const most = Math.min(...lists.map((parts) => parts.length)) - 1;
  let count = 0;
  while (count < most && lists.every((parts) => parts[count] === lists[0][count])) count++;
  return count;
}

/** The names without their common parts; `mark` stands for what is left out in front. */
function cut(names, pattern, mark) {
  const lists = names.map((name) => name.split(pattern));
  const first = common(lists);
  const rest = lists.map((parts) => parts.slice(first));
  const last = common(rest.map((parts) => [...parts].reverse()));
  const begin = first ? mark : "";
  return rest.map((parts) => begin + parts.slice(0, parts.length - last).join(""));
}

/**
 * A Map from runs to short names: without the folders, and in long names without the
 * words, that all begin or end with. A run alone keeps its name.
 */
export function shortNames(runs) {
  if (runs.length < 2) return new Map(runs.map((run) => [run, run]));
  let names = cut(runs, /(?<=\/)|(?=\/)/, "");
  if (names.some((name) => name.length > LONG)) names = cut(names, /(?<=[_ /])|(?=[_ /])/, "…");
  return new Map(runs.map((run, i) => [run, names[i] || run]));
}
