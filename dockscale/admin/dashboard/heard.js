// What the stream has told of each app. It is newer than any answer that was asked for meanwhile, and it ends with the truth.

const MOST_DECISIONS = 200;

export class Heard {
  #apps = new Map();

  /** Forget all: a new stream tells everything anew. */
  clear() {
    this.#apps.clear();
  }

  /** Note an event, and bring `app` up to it if that is known already. */
  note(event, told, app) {
    if (event === "removed") this.#apps.delete(told.app_id);
    if (!KINDS.has(event)) return;
    if (!this.#apps.has(told.app_id)) this.#apps.set(told.app_id, new Map());
    this.#apps.get(told.app_id).set(event, told);
    if (app) apply(app, event, told);
  }

  /** Bring an app, as it was answered, up to what was heard. */
  update(app) {
    for (const [event, told] of this.#apps.get(app.app_id) ?? []) apply(app, event, told);
    return app;
  }
}

const KINDS = new Set(["decision", "state", "load", "instances"]);

function apply(app, event, told) {
  if (app.state === "invalid") return;
  if (event === "load") Object.assign(app.load, told);
  else if (event !== "decision") Object.assign(app, told);
  else if (!(app.decision?.at >= told.at)) {
    app.decision = told;
    if (app.decisions) app.decisions = [told, ...app.decisions].slice(0, MOST_DECISIONS);
  }
}
