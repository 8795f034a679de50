/**
 * Curves with their extremes. Of a long run TensorBoard keeps some steps, at random; the
 * logger writes the lowest and the highest of each few besides, and the first that is not
 * finite. So a spike of one step is drawn, and a restart is vertical.
 */

const joined = new WeakMap(); // from curves to what `whole` makes of them

/** A number at each of these steps, read off between those that are known. */
export function between(steps, known, values) {
  let place = 0;
  return Float64Array.from(steps, (step) => {
    while (place < known.length && known[place] < step) place++;
    if (place === known.length) return values.at(-1);
    if (place === 0 || known[place] === step) return values[place];
    const [a, b] = [place - 1, place];
    const share = (step - known[a]) / (known[b] - known[a]);
    return values[a] + share * (values[b] - values[a]);
  });
}

/**
 * The curve with its extremes, where it has some: all steps that are known. `sampled` is the
 * curve without them, whose steps are evenly likely, as smoothing wants them.
 */
export function whole(curve) {
  if (!curve.extremes) return {...curve, sampled: curve};
  if (!joined.has(curve)) joined.set(curve, join(curve));
  return joined.get(curve);
}

function join(curve) {
  const known = new Map();
  for (const {steps, values} of [curve.extremes, curve]) {
    steps.forEach((step, i) => known.set(step, values[i]));
  }
  const steps = Float64Array.from(known.keys()).sort();
  const values = Float64Array.from(steps, (step) => known.get(step));
  const times = between(steps, curve.steps, curve.wall_times);
  return {...curve, steps, values, wall_times: times, sampled: curve};
}

/** How many of how many steps TensorBoard has kept; up to which the logger has seen all. */
export function seenOf({sampled: {steps, extremes}}) {
  const all = steps.at(-1) - steps[0] + 1;
  const reach = extremes && extremes.steps[0] <= steps[0] ? extremes.reach : -1;
  return {kept: steps.length, all, reach, last: steps.at(-1)};
}
