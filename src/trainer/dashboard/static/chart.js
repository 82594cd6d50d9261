"use strict";
// Draws every `figure.chart` from its data attributes. Only `plot` knows uPlot, so that another library can replace it.
(() => {
  const probe = document.createElement("i"); // resolves light-dark(), which a canvas does not know
  const css = (name) => { probe.style.color = `var(${name})`; if (!probe.isConnected) document.body.append(probe); return getComputedStyle(probe).color; };
  const short = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5, notation: "compact" });
  const plain = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 6 });
  const FORMS = {
    number: (value) => Math.abs(value) < 1e-4 && value !== 0 ? value.toExponential(2) : plain.format(value),
    percent: (value) => `${(100 * value).toFixed(1)} %`,
    bytes: (value) => `${short.format(value)}B`,
  };
  const TABLE_ROWS = 40;

  // Position of the first step that is not before `step`.
  function position(steps, step) {
    let low = 0, high = steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle + 1; else high = middle;
    }
    return low;
  }

  // Points of one run, shared by the charts that show it. Adding a point twice changes nothing.
  class Source {
    constructor(url) {
      this.url = url; this.columns = {}; this.isThinned = false; this.charts = new Set(); this.asked = 0; this.range = [];
    }

    get numPoints() { return Math.max(0, ...Object.values(this.columns).map(([steps]) => steps.length)); }

    async load(...range) {
      const buckets = Math.max(300, Math.min(1200, innerWidth)), number = ++this.asked;
      Object.assign(this, { range, missed: [] }); // what comes while the answer is on its way may not be in it
      try {
        const answer = await fetch(`${this.url}&buckets=${buckets}${range.length ? `&low=${range[0]}&high=${range[1]}` : ""}`);
        if (answer.status >= 500) throw new Error(answer.status);
        const found = answer.ok ? await answer.json() : { columns: this.columns, is_thinned: this.isThinned }; // the run is gone
        if (number !== this.asked) return;
        const { missed } = this;
        Object.assign(this, { columns: found.columns, isThinned: found.is_thinned, limit: 8 * buckets, missed: undefined });
        missed.forEach((delta) => this.add(delta));
        this.changed();
      } catch { setTimeout(() => { if (number === this.asked) this.load(...range); }, 2000); } // the server is away; it may come back
    }

    add(delta) {
      this.missed?.push(delta);
      for (const [name, [steps, values]] of Object.entries(delta.columns)) {
        const column = this.columns[name] ??= [[], []];
        steps.forEach((step, number) => {
          const at = position(column[0], step);
          const isKnown = column[0][at] === step;
          column[0].splice(at, isKnown ? 1 : 0, step);
          column[1].splice(at, isKnown ? 1 : 0, values[number]);
        });
        if (column[0].length > this.limit) { this.load(...this.range); return; } // once in thousands of points
      }
      this.changed();
    }

    changed() { for (const chart of this.charts) chart.schedule(); }
  }

  const sources = new Map();
  function sourceOf(url) {
    if (!sources.has(url)) { sources.set(url, new Source(url)); sources.get(url).load(); }
    return sources.get(url);
  }

  class Chart {
    constructor(figure) {
      this.figure = figure; this.box = figure.querySelector(".plot"); this.isLog = false; this.smoothing = 0; this.range = null;
      this.form = FORMS[figure.dataset.form];
      this.read();
      figure.addEventListener("click", (event) => this.press(event.target.closest("button")?.dataset.do));
      const details = figure.querySelector("details");
      details.addEventListener("toggle", () => this.fillTable());
      details.firstElementChild.addEventListener("click", () => this.fillTable(true)); // before it opens; toggle comes after
      new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.box);
      document.documentElement.addEventListener("themechange", () => { this.remove(); this.schedule(); });
    }

    read() {
      const curves = JSON.parse(this.figure.dataset.curves), runs = JSON.parse(this.figure.dataset.sources);
      for (const { source } of this.lines ?? []) source.charts.delete(this);
      this.lines = runs.flatMap((run, number) => curves.map((curve) => ({
        ...curve, source: sourceOf(run.url), title: run.name || curve.title, color: run.name ? `--run-${number % 8}` : curve.color,
      })));
      for (const { source } of this.lines) source.charts.add(this);
      this.figure.querySelector("[data-smoothing]").disabled = this.lines.every((line) => line.is_marked);
    }

    // Smoothed curves, and the exact ones faintly behind them; the table has the exact numbers alone.
    series() {
      const curves = this.lines.map((line) => ({ ...line, weight: line.is_marked ? 0 : this.smoothing }));
      return [...curves, ...curves.filter(({ weight }) => weight).map((line) => ({ ...line, weight: 0, title: `${line.title}, exact`, alpha: 0.3 }))];
    }

    size() { return { width: this.box.clientWidth, height: Math.round(Math.max(220, Math.min(340, this.box.clientWidth * 0.45))) }; }

    // One drawing for all that changes in a frame.
    schedule() { this.frame ??= requestAnimationFrame(() => { this.frame = undefined; this.draw(); }); }

    draw() {
      const tables = this.series().map(({ source, column, weight }) => {
        const [steps, exact] = source.columns[column] ?? [[], []], values = weight ? smoothed(exact, weight) : exact;
        return [steps, this.isLog ? values.map((value) => value > 0 ? value : null) : values];
      });
      const data = tables.some(([steps]) => steps.length) ? uPlot.join(tables) : [[]].concat(tables.map(() => []));
      if (this.plot) this.plot.setData(data, !this.range); else this.plot = this.make(data);
      if (this.range) this.plot.setScale("x", { min: this.range[0], max: this.range[1] });
      setTimeout(() => this.showLast()); this.describe(); this.fillTable();
      this.figure.dataset.points = this.lines.reduce((sum, { source }) => sum + source.numPoints, 0);
      this.figure.dataset.drawn = performance.now().toFixed(0);
    }

    make(data) {
      const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      const log = this.isLog ? { distr: 3, log: 10 } : {};
      const series = this.series().map((line, number) => ({
        label: line.title, stroke: css(line.color), width: line.alpha ? 1 : 1.6, alpha: line.alpha ?? 1, spanGaps: true,
        dash: line.column.startsWith("full") ? [6, 4] : undefined,
        points: { show: line.is_marked || undefined, size: 5, fill: css(line.color) },
        value: (plot, value) => value === null || value === undefined ? "–" : this.form(value), number,
      }));
      const plot = new uPlot({
        ...this.size(), padding: [12, 24, 0, 0], series: [{ label: "step", value: (_, step) => step === null ? "–" : plain.format(step) }, ...series],
        scales: { x: { time: false }, y: log },
        axes: [{ ...axis, label: "step", labelFont: axis.font, labelSize: 18, size: 32 },
          { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => tick === null ? "" : this.form(tick)) }],
        legend: { live: true, markers: { width: 3 } },
        cursor: { drag: { x: true, y: false, setScale: true }, focus: { prox: 24 }, dataIdx: nearest },
        hooks: { drawAxes: [(self) => this.drawMarks(self)], setScale: [(self, key) => { if (key === "x") this.zoomed(self); }] },
      }, data, this.box);
      plot.over.setAttribute("aria-hidden", "true");
      pinch(plot);
      plot.over.addEventListener("mouseleave", () => setTimeout(() => this.showLast()));
      return plot;
    }

    // Without a pointer the legend has the last values.
    showLast() {
      if (!this.plot || (this.plot.cursor.left ?? -1) >= 0 || !this.plot.data[0].length) return;
      const last = this.plot.data[0].length - 1;
      this.plot.setLegend({ idxs: this.plot.data.map((_, series) => series ? nearest(this.plot, series, last) : last) });
    }

    remove() { this.plot?.destroy(); this.plot = undefined; }

    // The chosen step, and what lies beyond the best one where the run overfits; the words beside the charts hold them.
    drawMarks(plot) {
      const found = document.getElementById(this.figure.dataset.marks ?? "")?.dataset;
      if (!found) return;
      const { ctx, bbox } = plot, at = (step) => plot.valToPos(step, "x", true), right = bbox.left + bbox.width;
      ctx.save();
      ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
      if (found.overfits) { ctx.globalAlpha = 0.5; ctx.fillStyle = css("--bad-soft"); ctx.fillRect(at(Number(found.overfits)), bbox.top, right - at(Number(found.overfits)), bbox.height); ctx.globalAlpha = 1; }
      if (found.step) {
        const x = Math.round(at(Number(found.step))), isLeft = x > bbox.left + bbox.width * 0.7, gap = 6 * devicePixelRatio;
        ctx.strokeStyle = ctx.fillStyle = css("--good"); ctx.lineWidth = 1.5 * devicePixelRatio; ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
        ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
        ctx.font = `600 ${12 * devicePixelRatio}px system-ui, sans-serif`; ctx.textAlign = isLeft ? "right" : "left"; ctx.textBaseline = "top";
        ctx.fillText(found.label, x + (isLeft ? -gap : gap), bbox.top + 2 * devicePixelRatio);
      }
      ctx.restore();
    }

    bounds() {
      const ends = this.lines.flatMap(({ source, column }) => { const steps = source.columns[column]?.[0] ?? []; return steps.length ? [steps[0], steps[steps.length - 1]] : []; });
      return ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
    }

    // A person has zoomed: finer points come from the server where those at hand are thinned.
    zoomed(plot) {
      const { min, max } = plot.scales.x;
      if (min === null || min === undefined) return;
      const [first, last] = this.range ? [NaN, NaN] : this.bounds();
      if (min === first && max === last) return;
      if (this.range?.[0] === min && this.range?.[1] === max) return;
      if (!this.range && min <= first && max >= last) return;
      this.range = [min, max];
      this.figure.querySelector('[data-do="all"]').disabled = false;
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => { for (const source of new Set(this.lines.map((line) => line.source))) if (source.isThinned) source.load(...this.range.map(Math.round)); }, 200);
    }

    press(what) {
      if (!what || !this.plot) return;
      if (what === "log") {
        this.isLog = !this.isLog;
        this.figure.querySelector('[data-do="log"]').setAttribute("aria-pressed", this.isLog);
        this.remove(); this.schedule();
        return;
      }
      if (what === "all") {
        this.range = null;
        this.figure.querySelector('[data-do="all"]').disabled = true;
        for (const source of new Set(this.lines.map((line) => line.source))) if (source.isThinned) source.load();
        this.remove(); this.schedule();
        return;
      }
      const [low, high] = this.range ?? this.bounds(), width = high - low, middle = (low + high) / 2;
      const moves = { in: [middle - width / 4, middle + width / 4], out: [low - width / 2, high + width / 2], left: [low - width / 2, high - width / 2], right: [low + width / 2, high + width / 2] };
      const [min, max] = moves[what];
      if (max - min >= 1) this.plot.setScale("x", { min, max });
    }

    summary() {
      return this.lines.map(({ source, column, title }) => {
        const values = source.columns[column]?.[1] ?? [];
        return values.length ? `${title} from ${this.form(values[0])} to ${this.form(values[values.length - 1])}` : `${title} not measured`;
      }).join("; ");
    }

    describe() { this.box.setAttribute("aria-label", `${this.figure.dataset.title} by step: ${this.summary()}. The table below has numbers.`); }

    // The numbers for those who cannot see the chart: the same points, evenly fewer.
    fillTable(opens = false) {
      const details = this.figure.querySelector("details");
      if (!details.open && !opens) return;
      const all = [...new Set(this.lines.flatMap(({ source, column }) => source.columns[column]?.[0] ?? []))].sort((a, b) => a - b);
      const stride = Math.max(1, Math.ceil(all.length / TABLE_ROWS));
      const steps = all.filter((step, number) => number % stride === 0 || number === all.length - 1 || this.lines.some((line) => line.is_marked && stride < 50 && known(line, step)));
      const body = details.querySelector("tbody");
      body.replaceChildren(...steps.slice(0, 4 * TABLE_ROWS).map((step) => {
        const row = document.createElement("tr"), head = document.createElement("th");
        head.scope = "row"; head.textContent = plain.format(step); row.append(head);
        for (const line of this.lines) { const cell = row.insertCell(); cell.className = "number"; const value = known(line, step); cell.textContent = value === undefined ? "–" : this.form(value); }
        return row;
      }));
    }
  }

  function known({ source, column }, step) {
    const [steps, values] = source.columns[column] ?? [[], []], at = position(steps, step);
    return steps[at] === step ? values[at] : undefined;
  }

  // The measured point nearest to the pointer: curves have points at different steps.
  function nearest(plot, series, at) {
    const values = plot.data[series];
    if (values[at] !== null && values[at] !== undefined) return at;
    for (let away = 1; away < values.length; away++) {
      for (const beside of [at - away, at + away]) if (values[beside] !== null && values[beside] !== undefined) return beside;
    }
    return at;
  }

  // Weighted mean of the values so far, an earlier one counting less by `weight` each step.
  function smoothed(values, weight) {
    let sum = 0, total = 0;
    return values.map((value) => { sum = weight * sum + value; total = weight * total + 1; return sum / total; });
  }

  // The steps below two fingers stay below them.
  function pinch(plot) {
    const fingers = new Map(), places = () => [...fingers.values()].sort((a, b) => a - b);
    let steps = [];
    plot.over.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch") return;
      fingers.set(event.pointerId, event.offsetX);
      steps = places().map((left) => plot.posToVal(left, "x"));
    });
    plot.over.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      fingers.set(event.pointerId, event.offsetX);
      const [left, right] = places(), scale = (steps[1] - steps[0]) / (right - left), min = steps[0] - left * scale;
      if (fingers.size === 2 && right - left > 8) plot.setScale("x", { min, max: min + plot.over.clientWidth * scale });
    });
    for (const end of ["pointerup", "pointercancel"]) plot.over.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }

  const charts = new Map();
  function find() {
    for (const figure of document.querySelectorAll("figure.chart")) if (!charts.has(figure)) charts.set(figure, new Chart(figure));
  }
  document.addEventListener("points", (event) => { // named by the stream of a run
    const delta = JSON.parse(event.detail.data), source = sources.get(delta.source);
    if (delta.columns) source?.add(delta); else source?.load(...source.range);
  });
  document.addEventListener("htmx:after:swap", () => { for (const chart of charts.values()) chart.plot?.redraw(false); });
  document.addEventListener("change", (event) => { // another measure of the same runs
    if (event.target.matches("select[data-smoothing]")) {
      const chart = charts.get(event.target.closest("figure"));
      chart.smoothing = Number(event.target.value); chart.remove(); chart.schedule();
    }
    if (!event.target.matches("select[data-curves]")) return;
    const chart = charts.get(document.getElementById(event.target.dataset.curves));
    Object.assign(chart.figure.dataset, event.target.selectedOptions[0].dataset);
    chart.form = FORMS[chart.figure.dataset.form]; chart.range = null; chart.read(); chart.remove(); chart.schedule();
  });
  addEventListener("DOMContentLoaded", find);
})();
