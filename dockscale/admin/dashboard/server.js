// All that is asked of dockscale: with the token if there is one, and again when a stream has broken.

const TOKEN = "dockscale-token";
const SILENCE_MS = 40_000; // a stream says every 15 s that it is there
const PAUSES_MS = [1000, 2000, 5000];

let ahead = 0; // milliseconds that dockscale's clock is ahead of this one
let login = null;

/** dockscale said no. `message` is the problem's detail. */
export class Refused extends Error {
  constructor(status, told) {
    super(told.detail ?? `dockscale answered ${status}`);
    this.status = status;
    this.problems = told.problems ?? [];
  }
}

/** dockscale's time, in milliseconds since 1970. */
export const now = () => Date.now() + ahead;

/** Learn dockscale's time from what happened `ago_s` seconds before it was told. */
export function learn({ at, ago_s }) {
  ahead = Date.parse(at) + ago_s * 1000 - Date.now();
}

/** Ask and return what the JSON says. Throws `Refused`, or `TypeError` where nobody answers. */
export async function ask(path, method = "GET") {
  const answer = await request(path, { method, headers: { Accept: "application/json" } });
  return answer.status === 204 ? null : answer.json();
}

/** Say to whom to turn for a token: `askFor(problem)` gives one. */
export function loginBy(askFor) {
  login = askFor;
}

/**
 * Follow a stream until `signal` ends it: `hear(event, data)` is called for each event, and with `open`, `lost`
 * (connection gone, tried again) and `gone` (there is nothing to follow, tried again). A page that nobody can see follows
 * nothing: browsers have few connections for all their tabs together.
 */
export async function follow(path, hear, signal) {
  for (let failures = 0; !signal.aborted; failures++) {
    if (document.hidden) await becoming(false, signal);
    const unseen = new AbortController();
    becoming(true, unseen.signal).then(() => unseen.abort());
    const either = AbortSignal.any([signal, unseen.signal]);
    try {
      await listen(path, (event, data) => {
        failures = -1;
        hear(event, data);
      }, either);
      if (!either.aborted) hear("lost");
    } catch (error) {
      if (!either.aborted) hear(error.status === 404 ? "gone" : "lost");
    }
    const left = either.aborted;
    unseen.abort();
    if (left) continue;
    const pause = PAUSES_MS[Math.min(Math.max(failures, 0), PAUSES_MS.length - 1)];
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Wait until the page is hidden, or is not; or for the signal. Nothing listens any more then. */
function becoming(hidden, signal) {
  return new Promise((resolve) => {
    const settled = new AbortController();
    const settle = () => {
      settled.abort();
      resolve();
    };
    signal.addEventListener("abort", settle, { signal: settled.signal });
    document.addEventListener("visibilitychange", () => document.hidden === hidden && settle(), { signal: settled.signal });
  });
}

async function listen(path, hear, signal) {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE_MS);
  try {
    const answer = await request(path, {
      signal: AbortSignal.any([signal, silent.signal]), headers: { Accept: "text/event-stream" },
    });
    hear("open");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part; !(part = await reader.read()).done; ) {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE_MS);
      const blocks = (rest + part.value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) tell(block, hear);
    }
  } finally {
    clearTimeout(timer);
  }
}

function tell(block, hear) {
  const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
  if (fields.event) hear(fields.event, JSON.parse(fields.data));
}

async function request(path, options) {
  for (let problem = ""; ; problem = "dockscale does not know this token.") {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers;
    const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
    if (answer.ok) return answer;
    if (answer.status !== 401) throw new Refused(answer.status, await answer.json().catch(() => ({})));
    // Another question may have got a token meanwhile.
    if (sessionStorage.getItem(TOKEN) === token) sessionStorage.setItem(TOKEN, await login(token ? problem : ""));
  }
}
