"use strict";
// What the page holds comes gzipped, as base64 in script elements that are no scripts.
async function unpacked(id) {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function drawFigures() {
  const code = element("script");
  code.textContent = await unpacked("packed-plotly");
  document.head.append(code);
  const figures = JSON.parse(await unpacked("packed-figures"));
  for (const [stem, figure] of Object.entries(figures)) {
    const place = document.getElementById("plot-" + stem);
    await Plotly.newPlot(place, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      // Named one by one: among the usual ones is one that sends the data away.
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
      plotlyServerURL: "",
      toImageButtonOptions: { format: "svg", filename: stem },
    });
    place.dataset.traces = place.querySelectorAll(".scatterlayer .trace").length;
  }
  // Plots are drawn for the screen; a page of paper may be narrower.
  const fit = () => document.querySelectorAll(".plot").forEach((plot) => Plotly.Plots.resize(plot));
  window.addEventListener("beforeprint", fit);
  window.addEventListener("afterprint", fit);
}

const BLUES = [[255, 255, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]];
const CHANGE = [[5, 80, 140], [107, 174, 214], [255, 255, 255], [253, 184, 99], [179, 88, 6]];

function colour(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const mixed = stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * (at - low)));
  return "rgb(" + mixed.join(",") + ")";
}

const MISSING = 255, LARGEST = 254, MOST_SHOWN = 12;

class Strips {
  constructor(datasets) {
    this.datasets = datasets;
    for (const each of datasets) {
      each.bytes = Uint8Array.from(atob(each.costs), (letter) => letter.charCodeAt(0));
      let begin = 0;
      for (const sentence of each.sentences) {
        sentence.begin = begin;
        begin += sentence[3].length;
      }
      each.n = begin;
    }
    this.controls = Object.fromEntries(
      ["search", "data", "condition", "show"].map((n) => [n, document.getElementById("strips-" + n)]));
    datasets.forEach((each, number) => this.controls.data.append(new Option(each.title, number)));
    this.controls.data.addEventListener("change", () => this.choose());
    for (const name of ["search", "condition", "show"])
      this.controls[name].addEventListener("input", () => this.draw(MOST_SHOWN));
    document.getElementById("strips-more").addEventListener("click", () => this.draw(this.shown + MOST_SHOWN));
    this.place = document.getElementById("strips");
    this.tip = document.getElementById("tip");
    this.place.addEventListener("mousemove", (event) => this.tell(event));
    this.place.addEventListener("mouseleave", () => (this.tip.style.display = "none"));
    window.addEventListener("hashchange", () => this.follow());
    this.follow();
  }

  // report.html#search=TEXT looks for a text, in whichever data it is.
  follow() {
    const wanted = new URLSearchParams(location.hash.slice(1)).get("search");
    if (wanted !== null) {
      this.controls.search.value = wanted;
      const number = this.datasets.findIndex((each) => each.sentences.some((s) => this.fits(s, wanted)));
      if (number >= 0) this.controls.data.value = number;
    }
    this.choose();
    if (wanted !== null) document.getElementById("sentences").scrollIntoView();
  }

  fits(sentence, wanted) {
    const text = wanted.trim().toLowerCase();
    return sentence[1].toLowerCase().includes(text) || text === "#" + sentence[0];
  }

  choose() {
    this.data = this.datasets[Number(this.controls.data.value)];
    const conditions = [...new Set(this.data.sentences.map((sentence) => sentence[2]))];
    this.controls.condition.replaceChildren(new Option("all", ""));
    for (const each of conditions) if (each) this.controls.condition.append(new Option(each, each));
    this.controls.condition.parentElement.hidden = conditions.length < 2;
    this.largest = Math.max(1, quantile(this.data.bytes, 0.99));
    this.draw(MOST_SHOWN);
  }

  draw(most) {
    const condition = this.controls.condition.value;
    const found = this.data.sentences.filter(
      (each) => this.fits(each, this.controls.search.value) && (!condition || each[2] === condition));
    this.shown = Math.min(most, found.length);
    this.place.replaceChildren(...found.slice(0, this.shown).map((each) => this.strip(each)));
    const left = this.data.left_out
      ? ` A random sample: ${this.data.left_out} more sentences are in the run's table.` : "";
    const passes = this.data.passes.length < this.data.n_passes
      ? ` ${this.data.passes.length} of ${this.data.n_passes} passes are shown.` : "";
    document.getElementById("strips-count").textContent =
      `${found.length} of ${this.data.sentences.length} sentences.${left}${passes}`;
    document.getElementById("strips-more").hidden = this.shown >= found.length;
    this.drawScale();
  }

  get isChange() { return this.controls.show.value === "change"; }

  drawScale() {
    const stops = this.isChange ? CHANGE : BLUES;
    const top = (this.largest * 0.1).toFixed(0);
    document.getElementById("strips-scale").style.background =
      `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((at) => colour(stops, at)).join(",")})`;
    document.getElementById("strips-low").textContent = this.isChange ? `−${top} bits (cheaper)` : "0 bits";
    document.getElementById("strips-high").textContent = this.isChange ? `+${top} bits (dearer)` : `${top} bits or more`;
  }

  cost(pass, token) { return this.data.bytes[pass * this.data.n + token]; }

  strip(sentence) {
    const made = element("div", undefined, "strip");
    const head = element("div", undefined, "head");
    head.append(element("span", sentence[1], "text"), ` #${sentence[0]}`, sentence[2] ? ` · ${sentence[2]}` : "");
    const scroll = element("div", undefined, "scroll");
    const table = element("table");
    const tokens = element("tr");
    tokens.append(element("th", "", "at"));
    sentence[3].forEach((token, place) => {
      const begins = place > 0 && sentence[4][place] !== sentence[4][place - 1];
      tokens.append(element("th", this.data.vocabulary[token].trim() || "␣", begins ? "begins" : ""));
    });
    table.append(tokens);
    const n = this.data.passes.length;
    const height = Math.max(4, Math.min(16, Math.round(200 / n)));
    const every = Math.ceil(11 / height);
    this.data.passes.forEach(([epochs, isBest], pass) => {
      const row = element("tr");
      const isTold = pass % every === 0 || isBest;
      const at = element("th", isTold ? label(epochs) + (isBest ? " ★" : "") : "", "at");
      row.style.height = height + "px";
      at.style.height = height + "px";
      row.append(at);
      sentence[3].forEach((_, place) => {
        const cell = element("td");
        const here = this.cost(pass, sentence.begin + place);
        const first = this.cost(0, sentence.begin + place);
        if (here === MISSING || (this.isChange && first === MISSING)) cell.style.background =
          "repeating-linear-gradient(45deg, #ddd 0 2px, #fff 2px 4px)";
        else cell.style.background = this.isChange
          ? colour(CHANGE, 0.5 + (here - first) / (2 * this.largest)) : colour(BLUES, here / this.largest);
        cell.dataset.at = `${pass} ${sentence.begin + place} ${sentence[3][place]}`;
        row.append(cell);
      });
      table.append(row);
    });
    scroll.append(table);
    made.append(head, scroll);
    return made;
  }

  tell(event) {
    const at = event.target.dataset && event.target.dataset.at;
    this.tip.style.display = at ? "block" : "none";
    if (!at) return;
    const [pass, token, number] = at.split(" ").map(Number);
    const here = this.cost(pass, token);
    const bits = here === MISSING ? "NA" : (here === LARGEST ? "≥ " : "") + (here * 0.1).toFixed(1) + " bits";
    this.tip.textContent = `“${this.data.vocabulary[number]}” after ${label(this.data.passes[pass][0])} epochs: ${bits}`;
    this.tip.style.left = Math.min(event.clientX + 12, innerWidth - 260) + "px";
    this.tip.style.top = event.clientY + 14 + "px";
  }
}

function label(epochs) { return String(Math.round(epochs * 100) / 100); }

function quantile(bytes, share) {
  const counts = new Array(256).fill(0);
  for (const byte of bytes) if (byte !== MISSING) counts[byte] += 1;
  let left = counts.reduce((sum, n) => sum + n, 0) * share;
  for (let value = 0; value < 256; value++) if ((left -= counts[value]) <= 0) return value;
  return LARGEST;
}

async function begin() {
  try {
    if (document.getElementById("packed-figures")) await drawFigures();
    if (document.getElementById("packed-strips"))
      new Strips(JSON.parse(await unpacked("packed-strips")));
    document.body.dataset.ready = "true";
  } catch (error) {
    document.getElementById("problem").textContent =
      "This page needs a browser of 2023 or newer to draw its figures; their PDFs lie beside it. (" + error + ")";
    throw error;
  }
}
begin();
