/** Where a training goes wrong, and what of y shows the rest of it. */

const FAR = 10; // times the values at a run's beginning: that is no descent any more
const FLAT = 4; // times as high as what is shown: only then something is cut off

const number = (v) => Number.isFinite(v);

/** The middle of some numbers, of which every so manieth is looked at. */
function median(values) {
  const every = Math.ceil(values.length / 500);
  const some = Float64Array.from(values.filter((_, i) => i % every === 0)).sort();
  return some[Math.floor(some.length / 2)];
}

/**
 * The first value that is not finite: {i, word, rest, exact}, null if there is none.
 * `rest` is whether all that follow are not finite either; `exact` whether the step
 * before it is there, or all steps up to `reach` were seen, so that it is the first.
 */
export function firstBad(values, steps, reach) {
  const i = values.findIndex((v) => !number(v));
  if (i < 0) return null;
  return {
    i,
    word: Number.isNaN(values[i]) ? "NaN" : "infinite",
    rest: values.subarray(i).every((v) => !number(v)),
    exact: steps[i] === 0 || (i > 0 && steps[i] - steps[i - 1] === 1) || steps[i] <= reach,
  };
}

/**
 * [low, high] of a loss that falls: from its lowest to what it began with, or to its
 * median, where that is not far beyond. `null` if no value is finite.
 */
function descent(values) {
  const seen = values.filter(number);
  if (seen.length === 0) return null;
  const begin = seen.slice(0, Math.max(3, Math.floor(seen.length / 50)));
  const [start, middle] = [median(begin), median(seen)];
  const [lowest, highest] = [seen.reduce((a, b) => Math.min(a, b)), seen.reduce((a, b) => Math.max(a, b))];
  const size = Math.max(Math.abs(begin[0]), Math.abs(Math.min(start, middle)));
  const far = (v) => Math.abs(v) > FAR * size;
  const top = far(middle) ? start : Math.max(start, middle);
  const low = lowest < 0 && far(lowest) ? Math.min(begin[0], far(middle) ? start : middle) : lowest;
  const margin = 0.15 * (top - low);
  return {whole: [lowest, highest], shown: [Math.max(lowest, low - 2 * margin), Math.min(highest, top + 2 * margin)]};
}

/**
 * What of y shows these losses and not their divergence: {range, beyond}. `range` is null
 * where all is shown; `beyond` has the index of each run that goes on outside.
 */
export function withoutDivergence(runs, log) {
  const scaled = ([low, high]) => (log ? [low, high].map(Math.log10) : [low, high]);
  const all = runs.map((values) => descent(log ? values.filter((v) => v > 0) : values));
  const found = all.filter((one) => one !== null);
  const none = {range: null, beyond: []};
  if (found.length === 0) return none;
  const union = (name) => {
    const ends = found.map((one) => one[name]);
    return [Math.min(...ends.map(([v]) => v)), Math.max(...ends.map(([, v]) => v))];
  };
  const height = (range) => {
    const [low, high] = scaled(range);
    return high - low;
  };
  const range = union("shown");
  if (!(height(range) > 0) || height(union("whole")) <= FLAT * height(range)) return none;
  const outside = (one) => one && (one.whole[0] < range[0] || one.whole[1] > range[1]);
  const beyond = all.flatMap((one, i) => (outside(one) ? [i] : []));
  return {range, beyond};
}
