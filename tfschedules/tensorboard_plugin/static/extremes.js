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
 * The curve with its extremes, where it has some and lacks steps: all that are known.
 * `sampled` is the curve without them, whose steps are evenly likely, as smoothing wants.
 */
export function whole(curve) {
  if (!joined.has(curve)) {
    const {steps, extremes} = curve;
    const every = steps.length === steps.at(-1) - steps[0] + 1;
    joined.set(curve, {...(extremes && !every ? join(curve) : curve), sampled: curve});
  }
  return joined.get(curve);
}

/** Both in one, in the order of the steps; each step once. */
function join(curve) {
  const {steps: own, values: ownValues, extremes: {steps: other, values: otherValues}} = curve;
  const steps = new Float64Array(own.length + other.length);
  const values = new Float64Array(steps.length);
  let [i, k, count] = [0, 0, 0];
  while (i < own.length || k < other.length) {
    const next = i < own.length && !(other[k] < own[i]); // also where there is no other left
    steps[count] = next ? own[i] : other[k];
    values[count++] = next ? ownValues[i] : otherValues[k];
    const step = steps[count - 1];
    if (own[i] === step) i++;
    if (other[k] === step) k++;
  }
  const all = steps.subarray(0, count);
  const times = between(all, own, curve.wall_times);
  return {...curve, steps: all, values: values.subarray(0, count), wall_times: times};
}

/** How many of how many steps TensorBoard has kept; up to which the logger has seen all. */
export function seenOf({sampled: {steps, extremes}}) {
  const all = steps.at(-1) - steps[0] + 1;
  const reach = extremes && extremes.steps[0] <= steps[0] ? extremes.reach : -1;
  return {kept: steps.length, all, reach, last: steps.at(-1)};
}
