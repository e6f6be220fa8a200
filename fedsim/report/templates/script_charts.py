"""The script of the run report: lines over rounds, a map of clients and rounds, their controls.

It draws with uPlot what `fedsim.report.embed` packed, in place of the still pictures.
"""

SCRIPT = r"""
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B97F00", "#2F8FCB", "#000000"];
const DARK = ["#56B4E9", "#FF8A3D", "#2FC79B", "#E9A3CB", "#F0B840", "#9AD0F2", "#FFFFFF"];
const DASHES = [[], [10, 4], [2, 3], [10, 4, 2, 4]];
const MISSING = 4095;
const digit = Object.fromEntries([...DATA.digits].map((sign, place) => [sign, place]));
const unpack = (text, low, high) => {
  const values = new Array(text.length / 2);
  for (let i = 0; i < values.length; i++) {
    const code = 64 * digit[text[2 * i]] + digit[text[2 * i + 1]];
    values[i] = code === MISSING ? null : low + (high - low) * code / (MISSING - 1);
  }
  return values;
};
const write = (value, unit) => value == null ? "–"
  : unit === "%" ? (100 * value).toFixed(1) + " %"
  : unit === "dB" ? value.toFixed(1) + " dB" : value.toFixed(2) + (unit && " " + unit);
const centre = ([first, last]) => (first + last) / 2;
const rounds = ([first, last]) => first === last ? `${first}` : `${first}–${last}`;
const theme = () => getComputedStyle(root);
const colour = place => (dark() ? DARK : LIGHT)[place % 7];
const several = DATA.runs.length > 1;
const $ = id => document.getElementById(id);
const LINES = ["mean", "from", "to", "blind"];

// What is chosen; each control redraws everything.
const families = [...new Set(DATA.curves.map(curve => curve.family))];
const titles = [...new Set(DATA.curves.map(curve => curve.title))];
const choice = {family: families[0], who: "all", client: "", attack: titles[0], map: 0};

function select(id, label, options, on) {
  const menu = el("select", {id, onchange: event => on(event.target.value)});
  for (const [value, text] of options) menu.append(el("option", {value}, text));
  return el("label", {for: id}, label + " ", menu);
}

function chosen() {
  if (several) return DATA.curves.filter(curve => curve.title === choice.attack);
  const fits = curve => curve.family === choice.family
    && (choice.who === "all" || curve.baseline || curve.adaptive === (choice.who === "adaptive"));
  return DATA.curves.filter(fits);
}

const cellsOf = curve => DATA.map && DATA.map.cells.find(it => DATA.curves[it.curve] === curve);

// A line per attack (of one client, if one is chosen), or per run.
function lines() {
  const one = choice.client !== "";
  const ends = one ? DATA.map.x : DATA.x, place = Number(choice.client), n = ends.length;
  const drawn = chosen().map(curve => {
    const label = several ? DATA.runs[curve.run].name : curve.title;
    if (!one) {
      const pair = it => [it, unpack(curve[it], curve.low, curve.high)];
      const of = Object.fromEntries(LINES.map(pair));
      return {label, curve, ...of};
    }
    const it = cellsOf(curve);
    if (!it) return null;
    const mean = unpack(it.values, it.low, it.high).slice(place * n, place * n + n);
    const blind = mean.map(() => unpack(it.blind, it.low, it.high)[place]);
    return {label, curve, mean, blind};
  });
  return [ends, drawn.filter(Boolean)];
}

const charts = [];
function chart(host, options, data) {
  const keep = host.querySelector(".uplot");
  if (keep) keep.remove();
  const plot = new uPlot({...options, width: host.clientWidth || 600}, data, host);
  charts.push([host, plot]);
  reachable(host, plot);
  return plot;
}

// Zoom, and the cursor, by keyboard; the legend's entries are buttons.
function reachable(host, plot) {
  host.tabIndex = 0;
  host.onkeydown = event => {
    if (event.target !== host) return;
    const {min, max} = plot.scales.x, middle = (min + max) / 2, half = (max - min) / 2;
    const xs = plot.data[0];
    if (event.key === "+") plot.setScale("x", {min: middle - half / 2, max: middle + half / 2});
    else if (event.key === "-" || event.key === "0") plot.setData(plot.data, true);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const step = event.key === "ArrowRight" ? 1 : -1;
      const next = Math.min(xs.length - 1, Math.max(0, (plot.cursor.idx ?? -step) + step));
      plot.setCursor({left: plot.valToPos(xs[next], "x"), top: plot.over.clientHeight / 2});
    } else return;
    event.preventDefault();
  };
  host.querySelectorAll(".u-legend .u-series th").forEach((th, place) => {
    if (!place) return;
    th.tabIndex = 0;
    th.setAttribute("role", "button");
    th.setAttribute("aria-pressed", "true");
    const state = () => th.setAttribute("aria-pressed", String(plot.series[place].show));
    th.addEventListener("click", () => setTimeout(state));
    th.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault(); th.click();
    });
  });
}

const axis = more => ({stroke: theme().getPropertyValue("--quiet"), font: "12px system-ui",
  grid: {stroke: theme().getPropertyValue("--line"), width: 1},
  ticks: {stroke: theme().getPropertyValue("--line"), width: 1}, ...more});
const whole = {values: (plot, at) => at.map(x => Number.isInteger(x) ? x : ""), label: "round"};

function drawLines() {
  const [ends, drawn] = lines(), unit = drawn.length ? drawn[0].curve.unit : "%";
  const best = drawn.filter(it => !it.curve.baseline).slice(0, several ? 7 : 6);
  const series = [{label: "round", value: (plot, x, s, i) => i == null ? "–" : rounds(ends[i])}];
  const data = [ends.map(centre)], bands = [];
  const value = (plot, y) => write(y, unit);
  const points = {show: ends.length <= 40, size: 5};
  drawn.forEach((it, place) => {
    const bright = best.indexOf(it), grey = theme().getPropertyValue("--faint");
    const stroke = several ? colour(place) : bright < 0 ? grey : colour(bright);
    const dash = it.curve.baseline ? [2, 3] : several ? DASHES[Math.floor(place / 7) % 4] : [];
    series.push({label: it.label, stroke, dash, value, points, spanGaps: true,
      width: bright < 0 ? 1 : 2});
    data.push(it.mean);
    it.at = series.length - 1;
  });
  const widest = drawn[0];
  if (widest) {
    series.push({label: "blind guess", stroke: theme().getPropertyValue("--quiet"), value,
      dash: [6, 4], width: 1.2, points: {show: ends.length === 1}, spanGaps: true});
    data.push(widest.blind);
  }
  const banded = drawn.filter(it => it.to && (several ? drawn.length <= 3 : best.indexOf(it) >= 0
    && best.indexOf(it) < 3));
  banded.forEach(it => {  // uPlot fills between two lines that are not drawn
    const at = series.length, edge = {stroke: "transparent", points: {show: false}, class: "edge"};
    series.push({...edge, label: `${it.label}: upper end`}, {...edge, label: "lower end"});
    data.push(it.to, it.from);
    bands.push({series: [at, at + 1], fill: series[it.at].stroke + "22"});
  });
  const ranged = unit === "%" ? (plot, low, high) => [Math.min(0, low ?? 0), Math.max(1, high ?? 1)]
    : undefined;
  const options = {height: 340, series, bands, cursor: {sync: {key: "rounds"}, drag: {x: true}},
    scales: {x: {time: false}, y: {range: ranged}}, axes: [axis(whole),
      axis({size: 68, values: (plot, at) => at.map(y => unit === "%" ? `${Math.round(100 * y)} %`
        : unit === "dB" ? `${+y.toFixed(1)} dB` : write(y, unit))})],
    hooks: {setSeries: [(plot, place) => place && edges(plot, banded, place)]}};
  const plot = chart($("lines"), options, data);
  $("lines").querySelectorAll(".u-series").forEach((row, place) => {
    if (series[place].class === "edge") row.remove();
  });
  $("lines-title").textContent = drawn.length ? `Over rounds: ${drawn[0].curve.name}`
    : "No attack of this choice was graded";
  const who = choice.client === "" ? "Lines are means over clients."
    + (banded.length ? ` Bands are ${DATA.band}.` : "")
    : `Client ${DATA.map.clients[choice.client]} alone. The dashed line is its blind guess.`;
  const grouped = ends.some(([first, last]) => first !== last)
    ? " Neighbouring rounds are averaged, so that the file stays small." : "";
  $("lines-caption").textContent = who + grouped;
  const last = it => `${it.label} ${write(it.mean.findLast(y => y != null), unit)}`;
  $("lines").setAttribute("aria-label", `${$("lines-title").textContent}, in the last round: `
    + `${drawn.slice(0, 8).map(last).join(", ")}. `
    + "Arrow keys move, plus zooms, zero resets.");
  values(ends, drawn, unit);
}

// A band is hidden with its line.
function edges(plot, banded, place) {
  const first = plot.series.length - 2 * banded.length;
  banded.forEach((it, i) => {
    if (it.at !== place) return;
    for (const at of [first + 2 * i, first + 2 * i + 1])
      if (plot.series[at].show !== plot.series[place].show)
        plot.setSeries(at, {show: plot.series[place].show});
  });
}

// The same as a table.
function values(ends, drawn, unit) {
  const table = el("table", {}, el("tr", {}, el("th", {}, "round"),
    ...drawn.map(it => el("th", {}, it.label)), el("th", {}, "blind")));
  ends.forEach((of, i) => table.append(el("tr", {}, el("td", {}, rounds(of)),
    ...drawn.map(it => el("td", {}, write(it.mean[i], unit))),
    el("td", {}, write(drawn.length ? drawn[0].blind[i] : null, unit)))));
  $("lines-values").replaceChildren(table);
}

function drawAccuracy() {
  const at = [...new Set(DATA.runs.flatMap(run => run.accuracy.map(pair => pair[0])))];
  at.sort((a, b) => a - b);
  const data = [at], series = [{label: "round"}];
  DATA.runs.forEach((run, place) => {
    const of = new Map(run.accuracy);
    data.push(at.map(x => of.get(x) ?? null));
    const stroke = several ? colour(place) : theme().getPropertyValue("--ink");
    series.push({label: several ? run.name : "test accuracy", stroke, width: 2, spanGaps: true,
      points: {show: at.length === 1}, dash: DASHES[Math.floor(place / 7) % 4],
      value: (plot, y) => write(y, "%")});
  });
  $("accuracy").setAttribute("aria-label", "Test accuracy over rounds");
  chart($("accuracy"), {height: 190, series, cursor: {sync: {key: "rounds"}},
    scales: {x: {time: false}, y: {range: [0, 1]}}, axes: [axis(whole), axis({size: 68,
      values: (plot, y) => y.map(v => `${Math.round(100 * v)} %`)})]}, data);
}

function draw() {
  charts.length = 0;
  drawLines();
  if (DATA.runs.some(run => run.accuracy.length)) drawAccuracy(); else $("accuracy").hidden = true;
  if (DATA.map) { drawMap(); clients(); }
}
"""
