/** Runs and curves from the server, each asked for once between two reloads. */

const MOST_RUNS = 50; // in one request
const MOST_CHARACTERS = 6000; // of an address

/** Numbers from base64 of little-endian float64, as every browser's machine has them. */
export function numbers(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Float64Array(bytes.buffer);
}

async function get(route, parameters) {
  const query = new URLSearchParams(parameters).toString();
  let response;
  try {
    response = await fetch(query ? `${route}?${query}` : route);
  } catch (error) {
    throw new Error(`TensorBoard does not answer (${error.message}). Is it running?`);
  }
  if (!response.ok) {
    const plain = response.headers.get("Content-Type")?.startsWith("text/plain");
    const why = plain ? await response.text() : response.statusText;
    throw new Error(`TensorBoard answers ${response.status} to ${route}: ${why}`);
  }
  return response.json();
}

/** Parts of `runs` short enough to be named in one address. */
function parts(runs) {
  const all = [];
  let length = 0;
  for (const run of runs) {
    const own = encodeURIComponent(run).length + 5;
    const last = all.at(-1);
    if (!last || last.length >= MOST_RUNS || length + own > MOST_CHARACTERS) {
      all.push([run]);
      length = own;
    } else {
      last.push(run);
      length += own;
    }
  }
  return all;
}

function curve(stored) {
  return Object.fromEntries(
    Object.entries(stored).map(([name, text]) => [name, numbers(text)]),
  );
}

/** Arrays by name, as numbers; what is no array stays. */
function plain(stored) {
  const {extremes, ...arrays} = stored;
  const found = curve(arrays);
  if (!extremes) return {...found, extremes: null};
  const {reach, ...points} = extremes;
  return {...found, extremes: {...curve(points), reach}};
}

export class Data {
  known = []; // the runs as they were listed last

  #asked = new Map(); // from "route tag" to a Map from runs to promises
  #problems = new Map(); // from runs to messages: scalars that cannot be read

  /** Every run in TensorBoard's order: {run, scalars: {tag: last step}, range_test}. */
  async runs() {
    this.known = (await get("runs", [])).runs;
    return this.known;
  }

  /** A Map from runs to what they were given, by name; runs without a record are not in it. */
  async settings(runs) {
    return this.#get("settings", [], runs, (given) => (given.error ? null : given));
  }

  /** A Map from runs to range tests; a run that has none is not in it. */
  async rangeTests(runs) {
    return this.#get("range_tests", [], runs, (test) =>
      test.error
        ? test
        : {...test, rows: test.rows && numbers(test.rows), curves: curve(test.curves)},
    );
  }

  /**
   * A Map from runs to {steps, wall_times, values, extremes} of a tag; `problems` has the
   * others. `extremes` are {steps, values, reach} or null: see extremes.js.
   */
  async scalars(tag, runs) {
    return this.#get("scalars", [["tag", tag]], runs, (stored, run) => {
      if (!stored.error) return plain(stored);
      this.#problems.set(run, stored.error);
      return null;
    });
  }

  /** What cannot be read of these runs, a line each. */
  problems(runs) {
    const damaged = runs.filter((run) => this.#problems.has(run));
    return damaged.map((run) => `${run}: ${this.#problems.get(run)}`);
  }

  /** Ask again from now on. */
  forget() {
    this.#asked = new Map();
    this.#problems = new Map();
  }

  async #get(route, parameters, runs, decode) {
    const key = JSON.stringify([route, parameters]);
    if (!this.#asked.has(key)) this.#asked.set(key, new Map());
    const asked = this.#asked.get(key);
    for (const part of parts(runs.filter((run) => !asked.has(run)))) {
      const named = part.map((run) => ["run", run]);
      const answer = get(route, [...parameters, ...named]).then((got) => got[route]);
      for (const run of part) {
        const own = answer.then((all) =>
          Object.hasOwn(all, run) ? decode(all[run], run) : null,
        );
        own.catch(() => asked.delete(run)); // so that it is asked for again
        asked.set(run, own);
      }
    }
    const got = await Promise.all(runs.map((run) => asked.get(run)));
    return new Map(runs.map((run, i) => [run, got[i]]).filter(([, found]) => found));
  }
}
