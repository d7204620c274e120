"use strict";
(() => {
  const figures = [...document.querySelectorAll("figure")];
  const specs = new Map();
  const drawn = new Set();

  function fields(figure) {
    const found = {};
    for (const select of figure.querySelectorAll("select")) found[select.dataset.name] = select.value;
    return found;
  }

  /* Ordinary figures: the traces that were picked, of the runs that are to be seen. */
  function ordinary(figure, spec) {
    const pick = figure.querySelector("select[data-pick]");
    const views = figure.closest("section").querySelector("select[data-views]");
    const data = spec.data.filter(
      (trace) =>
        (!pick || trace.pick === undefined || trace.pick === pick.value) &&
        (!views || trace.views === undefined || trace.views.includes(views.value)),
    );
    const units = spec.units?.[pick?.value];
    const layout = units ? { ...spec.layout, yaxis: { ...spec.layout.yaxis, title: { text: units } } } : spec.layout;
    return [data, layout];
  }

  /* The front: two metrics are chosen, each recipe is a point. */
  function front(figure, spec) {
    const { x, y } = fields(figure);
    const short = (value) => Number(value.toPrecision(4)).toString();
    const bar = (p, name) => ({ array: [p.means[name][1] ?? 0], visible: p.means[name][1] !== null });
    const points = spec.points.filter((p) => p.means[x] && p.means[y]);
    const data = [];
    for (const p of points) {
      const seeds = p.seeds.filter((s) => x in s.values && y in s.values);
      if (seeds.length)
        data.push({
          mode: "markers", showlegend: false, only: true,
          x: seeds.map((s) => s.values[x]), y: seeds.map((s) => s.values[y]),
          marker: { color: p.colour, symbol: p.symbol, size: 6, opacity: 0.35 },
          text: seeds.map((s) => [`${p.label}, seed ${s.seed}`, s.choice,
            `${short(s.values[x])}, ${short(s.values[y])}`].filter(Boolean).join("\n")),
        });
    }
    const named = new Set();
    for (const p of points) {
      const told = [x, y].map((m) => {
        const [mean, half] = p.means[m];
        return `${spec.metrics[m].label} ${short(mean)}${half === null ? "" : " ± " + short(half)}`;
      });
      data.push({
        mode: "markers", name: p.method, showlegend: !named.has(p.method), only: true, label: p.label,
        x: [p.means[x][0]], y: [p.means[y][0]], error_x: bar(p, x), error_y: bar(p, y),
        marker: { color: p.colour, symbol: p.symbol, size: 12 },
        text: [[p.label, ...told, ...(p.choice ? [p.choice] : [])].join("\n")],
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
    const axis = (m) => ({
      title: { text: `${spec.metrics[m].label} (${spec.metrics[m].better} is better)` },
      clip: spec.metrics[m].share ? [0, 1] : undefined,
    });
    return [data, { xaxis: axis(x), yaxis: axis(y) }];
  }
  const beats = (a, b) => a[0] >= b[0] && a[1] >= b[1] && (a[0] > b[0] || a[1] > b[1]);

  function show(figure) {
    const spec = specs.get(figure);
    const [data, layout] = (spec.kind === "front" ? front : ordinary)(figure, spec);
    draw(figure.querySelector(".canvas"), data, layout);
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
          if (drawn.has(one)) show(one);
      });
  }
  function choosers(figure, spec) {
    for (const name of ["x", "y"]) {
      const label = document.createElement("label");
      const select = document.createElement("select");
      label.className = "pick";
      select.dataset.name = name;
      for (const [metric, told] of Object.entries(spec.metrics)) select.add(new Option(told.label, metric));
      select.value = spec[name];
      label.append(name === "x" ? "across" : "up", " ", select);
      figure.insertBefore(label, figure.querySelector(".canvas"));
    }
  }
  for (const select of document.querySelectorAll("select[data-views]"))
    select.addEventListener("change", () => {
      for (const figure of select.closest("section").querySelectorAll("figure"))
        if (drawn.has(figure)) show(figure);
    });

  /* A figure is drawn when it comes near the screen, so that a long page opens at once. */
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries)
        if (entry.isIntersecting) {
          watcher.unobserve(entry.target);
          show(entry.target);
        }
    },
    { rootMargin: "500px" },
  );
  for (const figure of figures) watcher.observe(figure);
  let [width, waiting] = [window.innerWidth, 0];
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // a phone's address bar comes and goes
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => drawn.forEach(show), 150);
  });
  window.addEventListener("beforeprint", () => {
    for (const figure of figures) if (figure.offsetParent !== null && !drawn.has(figure)) show(figure);
  });
})();
