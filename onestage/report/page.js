"use strict";
(() => {
  const figures = [...document.querySelectorAll("figure")];
  const specs = new Map();
  const drawn = new Set();
  const narrow = () => window.innerWidth < 640;

  const variable = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  /* "@m0" is a colour of the page, "@m0/0.3" the same with an opacity. */
  function colour(text) {
    const [name, opacity] = text.slice(1).split("/");
    const hex = variable(name);
    if (opacity === undefined || !hex.startsWith("#")) return hex;
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${opacity})`;
  }
  function painted(value) {
    if (typeof value === "string")
      return /^@[a-z][a-z0-9-]*(\/[0-9.]+)?$/.test(value) ? colour(value) : value;
    if (Array.isArray(value)) return value.map(painted);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v)]));
    return value;
  }

  function merged(left, right) {
    const out = { ...left };
    for (const [key, value] of Object.entries(right)) {
      const both = value && typeof value === "object" && !Array.isArray(value) && out[key];
      out[key] = both ? merged(out[key], value) : value;
    }
    return out;
  }

  function dressed(layout) {
    const axis = {
      gridcolor: variable("line"), zerolinecolor: variable("soft"), linecolor: variable("line"),
      automargin: true, title: { font: { size: 12 }, standoff: 8 }, fixedrange: narrow(),
    };
    const base = {
      font: { family: "system-ui, sans-serif", size: 12, color: variable("text") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 50, r: 12, t: 12, b: 44 },
      legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0, bgcolor: "rgba(0,0,0,0)" },
      hoverlabel: { font: { family: "system-ui, sans-serif" }, align: "left", namelength: -1 },
      hovermode: "closest", dragmode: narrow() ? false : "zoom",
      xaxis: { ...axis, zeroline: false }, yaxis: { ...axis, zeroline: false },
    };
    return merged(base, painted(layout));
  }

  function fields(figure) {
    const found = {};
    for (const select of figure.querySelectorAll("select")) found[select.dataset.name] = select.value;
    return found;
  }

  /* Ordinary figures: the traces that were picked, of the runs that are to be seen. */
  function ordinary(figure, spec) {
    const pick = figure.querySelector("select[data-pick]");
    const views = figure.closest("section").querySelector("select[data-views]");
    const option = pick ? escaped(pick.value) : null;
    const view = views ? escaped(views.value) : null;
    const data = spec.data.filter(
      (trace) =>
        (option === null || trace.pick === undefined || trace.pick === option) &&
        (view === null || trace.views === undefined || trace.views.includes(view)),
    );
    return [data, spec.layout];
  }
  const escaped = (text) =>
    text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  /* The front: two metrics are chosen, each recipe is a point. */
  function front(figure, spec) {
    const { x, y } = fields(figure);
    const short = (value) => Number(value.toPrecision(4)).toString();
    const bar = (points, name) => ({
      type: "data", array: points.map((p) => p.means[name][1] ?? 0), width: 3, thickness: 1,
      color: "@text/0.45", visible: points.some((p) => p.means[name][1]),
    });
    const data = [];
    const points = spec.points.filter((p) => p.means[x] && p.means[y]);
    for (const p of points) {
      const seeds = p.seeds.filter((s) => x in s.values && y in s.values);
      if (seeds.length)
        data.push({
          mode: "markers", showlegend: false, legendgroup: p.method,
          x: seeds.map((s) => s.values[x]), y: seeds.map((s) => s.values[y]),
          marker: { color: p.colour, symbol: p.symbol, size: 6, opacity: 0.35 },
          text: seeds.map((s) => `${p.label}, seed ${s.seed}${s.choice ? "<br>" + s.choice : ""}`),
          hovertemplate: "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        });
    }
    const named = new Set();
    for (const p of points) {
      const told = [x, y].map((m) => {
        const [mean, half] = p.means[m];
        return `${escaped(m)} ${short(mean)}${half === null ? "" : " ± " + short(half)}`;
      });
      data.push({
        mode: "markers", name: p.method, legendgroup: p.method, showlegend: !named.has(p.method),
        x: [p.means[x][0]], y: [p.means[y][0]], error_x: bar([p], x), error_y: bar([p], y),
        marker: { color: p.colour, symbol: p.symbol, size: 13, line: { color: "@page", width: 1.5 } },
        text: [[`<b>${p.label}</b>`, ...told, ...(p.choice ? [p.choice] : [])].join("<br>")],
        hovertemplate: "%{text}<extra></extra>",
      });
      named.add(p.method);
    }
    const sign = (name) => (spec.metrics[name].better === "lower" ? -1 : 1);
    const at = (p) => [sign(x) * p.means[x][0], sign(y) * p.means[y][0]];
    const best = points
      .filter((p) => !points.some((q) => beats(at(q), at(p))))
      .sort((p, q) => p.means[x][0] - q.means[x][0]);
    if (best.length > 1)
      data.unshift({
        mode: "lines", showlegend: false, hoverinfo: "skip",
        x: best.map((p) => p.means[x][0]), y: best.map((p) => p.means[y][0]),
        line: { color: "@soft", width: 1.2, dash: "dot" },
      });
    const title = (m) => `${escaped(m)} (${spec.metrics[m].better} is better)`;
    return [data, {
      xaxis: { title: { text: title(x) } }, yaxis: { title: { text: title(y) } },
      showlegend: named.size <= 16,
    }];
  }
  const beats = (a, b) => a[0] >= b[0] && a[1] >= b[1] && (a[0] > b[0] || a[1] > b[1]);

  function draw(figure) {
    const spec = specs.get(figure);
    const [data, layout] = (spec.kind === "front" ? front : ordinary)(figure, spec);
    const config = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
    Plotly.react(figure.querySelector(".canvas"), painted(data), dressed(layout), config);
    drawn.add(figure);
  }

  for (const figure of figures) {
    const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    specs.set(figure, spec);
    if (spec.kind === "front") choosers(figure, spec);
    for (const select of figure.querySelectorAll("select"))
      select.addEventListener("change", () => {
        const others = figure.closest("[data-together]")?.querySelectorAll("select[data-pick]") ?? [];
        for (const other of others) other.value = select.value;
        for (const one of others.length ? [...others].map((o) => o.closest("figure")) : [figure])
          if (drawn.has(one)) draw(one);
      });
  }
  function choosers(figure, spec) {
    for (const name of ["x", "y"]) {
      const label = document.createElement("label");
      const select = document.createElement("select");
      label.className = "pick";
      select.dataset.name = name;
      for (const metric of Object.keys(spec.metrics)) select.add(new Option(metric, metric));
      select.value = spec[name];
      label.append(name === "x" ? "across" : "up", " ", select);
      figure.insertBefore(label, figure.querySelector(".canvas"));
    }
  }
  for (const select of document.querySelectorAll("select[data-views]"))
    select.addEventListener("change", () => {
      for (const figure of select.closest("section").querySelectorAll("figure"))
        if (drawn.has(figure)) draw(figure);
    });

  /* A figure is drawn when it comes near the screen, so that a long page opens at once. */
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries)
        if (entry.isIntersecting) {
          watcher.unobserve(entry.target);
          draw(entry.target);
        }
    },
    { rootMargin: "500px" },
  );
  for (const figure of figures) watcher.observe(figure);
  const again = () => drawn.forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("beforeprint", () => {
    for (const figure of figures) if (figure.offsetParent !== null && !drawn.has(figure)) draw(figure);
  });
})();
