"""The script of the run report, continued: the map of clients and rounds, its table, the start."""

SCRIPT = r"""
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
function shade(share) {  // viridis, read at five points
  const at = Math.min(3.999, Math.max(0, 4 * share)), i = Math.floor(at), rest = at - i;
  return `rgb(${RAMP[i].map((v, k) => Math.round(v + rest * (RAMP[i + 1][k] - v))).join(",")})`;
}

function drawMap() {
  const it = DATA.map.cells[choice.map], curve = DATA.curves[it.curve], ends = DATA.map.x;
  const names = DATA.map.clients, n = ends.length, cells = unpack(it.values, it.low, it.high);
  const blind = unpack(it.blind, it.low, it.high), whole = ["%", ""].includes(curve.unit);
  const most = whole ? 1 : it.high;
  const least = whole ? Math.min(0, it.low) : it.low, host = $("map");
  const tell = (column, row) => {
    const name = names[row], value = cells[row * n + column];
    $("map-cell").textContent = name === undefined || !ends[column] ? " "
      : `Client ${name}, round ${rounds(ends[column])}: ${write(value, curve.unit)}, `
        + `blind ${write(blind[row], curve.unit)}`;
  };
  const at = {column: 0, row: 0};
  const paint = plot => {
    const context = plot.ctx;
    context.save();
    context.beginPath();
    context.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
    context.clip();
    for (let row = 0; row < names.length; row++) for (let column = 0; column < n; column++) {
      const value = cells[row * n + column];
      if (value === null) continue;
      const x = plot.valToPos(column - 0.5, "x", true), y = plot.valToPos(row - 0.5, "y", true);
      context.fillStyle = shade((value - least) / ((most - least) || 1));
      context.fillRect(x, y, plot.valToPos(column + 0.5, "x", true) - x + 0.6,
        plot.valToPos(row + 0.5, "y", true) - y + 0.6);
    }
    context.restore();
  };
  const options = {height: Math.max(240, Math.min(640, 22 * names.length + 70)),
    legend: {show: false}, scales: {x: {time: false, range: (plot, low, high) =>
      [Math.max(-0.5, low - 0.5), Math.min(n - 0.5, high + 0.5)]},
      y: {range: [-0.5, names.length - 0.5], dir: -1}},
    series: [{}, {paths: () => null, points: {show: false}}],
    axes: [axis({label: "round", grid: {show: false}, values: (plot, ticks) =>
      ticks.map(x => ends[x] ? rounds(ends[x]) : "")}),
      axis({label: "client", size: 78, space: 15, grid: {show: false}, incrs: [1, 2, 5, 10, 20, 50],
        values: (plot, ticks) => ticks.map(y => (names[y] ?? "").slice(0, 11))})],
    hooks: {draw: [paint], setCursor: [plot => {
      if (plot.cursor.left < 0) return;
      tell(Math.round(plot.posToVal(plot.cursor.left, "x")),
        Math.round(plot.posToVal(plot.cursor.top, "y")));
    }]}};
  const plot = chart(host, options, [ends.map((of, i) => i), ends.map(() => 0)]);
  host.onkeydown = event => {
    const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    at.column = Math.min(n - 1, Math.max(0, at.column + move[0]));
    at.row = Math.min(names.length - 1, Math.max(0, at.row + move[1]));
    plot.setCursor({left: plot.valToPos(at.column, "x"), top: plot.valToPos(at.row, "y")});
  };
  host.setAttribute("aria-label", `${curve.title}, ${curve.name}, by client and round. Arrow keys `
    + "move from cell to cell. The table below has each client's highest round.");
  const [low, high] = [least, most].map(value => write(value, curve.unit));
  $("map-scale").replaceChildren(low + " ", el("i", {}), ` ${high}; empty: no value`);
}

// In which round each client leaked most.
function clients() {
  const it = DATA.map.cells[choice.map], curve = DATA.curves[it.curve];
  const get = name => unpack(it[name], it.low, it.high);
  const most = get("most"), mean = get("mean"), blind = get("blind"), atMost = get("most_blind");
  const heads = ["client", "leaked most in round", curve.name + " there", "blind there", "mean",
    "blind", "rounds"];
  const row = (tag, cells) => el("tr", {}, ...cells.map(cell => el(tag, {}, String(cell))));
  const table = el("table", {class: "data"}, row("th", heads));
  DATA.map.clients.forEach((name, i) => {
    const shares = [most[i], atMost[i], mean[i], blind[i]].map(value => write(value, curve.unit));
    if (it.rounds[i]) table.append(row("td", [name, it.peak[i], ...shares, it.rounds[i]]));
  });
  const box = $("clients");
  const region = {class: "scroll tall", role: "region", "aria-label": "Clients"};
  box.replaceChildren(el("div", region, table));
  sortable(table);
  scrollable(table.parentNode);
}

function controls() {
  const again = name => value => { choice[name] = value; draw(); };
  if (several) {
    $("controls").append(select("attack", "Attack", titles.map(it => [it, it]), again("attack")));
    return;
  }
  const family = select("family", "Family", families.map(it => [it, it]), again("family"));
  if (families.length > 1) $("controls").append(family);
  if (DATA.curves.some(curve => curve.adaptive)) $("controls").append(select("who", "Adversary",
    [["all", "all"], ["static", "static (does not know the defense)"],
      ["adaptive", "adaptive (knows the defense)"]], again("who")));
  if (!DATA.map) return;
  $("controls").append(select("client", "Client",
    [["", "all clients"], ...DATA.map.clients.map((name, i) => [i, name])], again("client")));
  const shown = DATA.map.cells.map((it, i) => [i, DATA.curves[it.curve].title]);
  $("map-controls").append(select("map-attack", "Attack", shown,
    value => { choice.map = Number(value); drawMap(); clients(); }));
}

function zoomOut() {
  for (const [host, plot] of charts) plot.setData(plot.data, true);
}

const explore = $("explore");
explore.hidden = false;
try {
  if (!DATA.map) $("map-part").remove();
  controls();
  $("controls").append(el("button", {type: "button", onclick: zoomOut}, "Reset zoom"));
  draw();
  listeners.push(draw);
  new ResizeObserver(() => charts.forEach(([host, plot]) => {
    const width = Math.floor(host.clientWidth);
    if (width && width !== plot.width) plot.setSize({width, height: plot.height});
  })).observe(explore);
  root.classList.add("live");
} catch (error) {
  explore.remove();  // the still pictures stay
  console.error(error);
}
"""
