// All experiments.

import { ask, badge, h, moment, short } from "./dom.js";
import { progress, told } from "./experiment.js";

export class ListView {
  constructor() {
    this.list = h("div", { class: "cards" });
    this.element = h("div", {}, h("h1", {}, "Experiments"), this.list);
  }

  async refresh() {
    const experiments = await ask("api/experiments");
    const said = JSON.stringify(experiments);
    if (said === this.said) return;
    this.said = said;
    this.list.replaceChildren(...experiments.map((one) => this.card(one)));
    if (!experiments.length) this.list.append(h("p", { class: "dim" }, "There are none yet."));
  }

  card(experiment) {
    const { objective, best } = experiment;
    return h("section", { class: "card" },
      h("div", { class: "row" },
        h("h2", {}, h("a", { href: `#/experiment/${encodeURIComponent(experiment.name)}` }, experiment.name)), badge(experiment.state)),
      progress(experiment),
      h("p", {}, told(experiment)),
      h("p", {}, best ? `best ${objective.metric}: ${short(best.value)} (#${best.number})` : "no best trial yet"),
      h("p", { class: "dim" }, experiment.created_s ? `created ${moment(experiment.created_s)}` : ""));
  }

  close() {}
}
