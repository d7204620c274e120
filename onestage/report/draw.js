"use strict";
/* Figures as SVG: lines, points, bars, maps. Colours are the page's, so that a figure follows its scheme. */
const draw = (() => {
  const SVG = new DOMParser().parseFromString("<svg></svg>", "text/html").body.firstChild.namespaceURI;
  const pen = document.createElement("canvas").getContext("2d");
  const LABELS = 8;

  function el(name, attributes = {}, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes))
      if (value !== undefined && value !== null) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function wide(text, weight = 400) {
    pen.font = `${weight} 12px system-ui, sans-serif`;
    return pen.measureText(text).width;
  }
  /* As much of a text as fits. */
  function fit(text, room, weight) {
    if (wide(text, weight) <= room) return text;
    let end = text.length;
    while (end > 1 && wide(text.slice(0, end) + "…", weight) > room) end -= 1;
    return text.slice(0, end) + "…";
  }
  /* "@m0" is a colour of the page, "@m0/0.3" the same with an opacity. */
  function ink(kind, told) {
    const [name, opacity] = told.slice(1).split("/");
    return `${kind}:var(--${name})` + (opacity ? `;${kind}-opacity:${opacity}` : "");
  }
  const DASH = { dash: "7 4", dot: "2 3", dashdot: "8 3 2 3", longdash: "12 4" };
  const short = (value) => (typeof value === "number" ? Number(value.toPrecision(4)).toString() : value);
  const one = (told, n) => (Array.isArray(told) ? told[n] : told);
  const finite = (value) => typeof value === "number" && Number.isFinite(value);

  /* Where values of an axis stand between two ends of the screen. */
  function category(axis, values, from, to) {
    const known = [...new Set(values)];
    const step = (to - from) / known.length;
    const at = (value) => from + step * (known.indexOf(value) + 0.5);
    return { at, step, ticks: known.map((value) => [value, String(value)]) };
  }
  function numeric(axis, values, from, to) {
    const log = axis.type === "log";
    const given = values.filter((v) => finite(v) && (!log || v > 0));
    if (axis.zeroline) given.push(0);
    let [low, high] = axis.range ?? [Math.min(...given), Math.max(...given)];
    if (!given.length && !axis.range) [low, high] = [0, 1];
    if (log) [low, high] = [Math.log10(low), Math.log10(high)];
    if (low === high) [low, high] = [low - (Math.abs(low) / 20 || 1), high + (Math.abs(high) / 20 || 1)];
    const edge = axis.range ? 0 : (high - low) * 0.05;
    low -= edge;
    high += edge;
    if (axis.clip) {
      low = Math.max(low, axis.clip[0] - 0.03);
      high = Math.min(high, axis.clip[1] + 0.03);
    }
    const place = (v) => from + ((v - low) / (high - low)) * (to - from);
    const inside = (v) => (axis.clip ? Math.min(Math.max(v, low), high) : v);
    const at = (v) => place(log ? Math.log10(v) : inside(v));
    const ticks = axis.tickvals
      ? axis.tickvals.map((v, n) => [v, axis.ticktext[n]])
      : log ? decades(low, high) : nice(low, high, Math.max(2, Math.abs(to - from) / (to > from ? 80 : 42)));
    return { at, ticks: ticks.filter(([v]) => within(at(v), from, to)) };
  }
  const within = (p, a, b) => p >= Math.min(a, b) - 0.5 && p <= Math.max(a, b) + 0.5;
  function nice(low, high, count) {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((s) => s >= raw);
    const places = Math.max(0, Math.ceil(-Math.log10(step) + (step / power === 2.5 ? 1 : 0) - 1e-9));
    const found = [];
    for (let n = Math.ceil(low / step); n * step <= high; n += 1) {
      const value = n * step;
      const text = Math.abs(value) >= 1e5 || places > 5 ? value.toExponential(1) : value.toFixed(places);
      found.push([value, n === 0 ? "0" : text]);
    }
    return found;
  }
  function decades(low, high) {
    const found = [];
    for (let power = Math.floor(low); power <= high; power += 1)
      for (const n of high - low > 2 ? [1] : [1, 2, 5]) found.push([n * 10 ** power, short(n * 10 ** power)]);
    return found;
  }

  const SHAPES = {
    circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    diamond: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
    square: (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
    "triangle-up": (r) => `M0,${-1.2 * r}L${1.15 * r},${0.9 * r}H${-1.15 * r}Z`,
    cross: (r) => { const s = r / 2.4; return `M${-s},${-r}H${s}V${-s}H${r}V${s}H${s}V${r}H${-s}V${s}H${-r}V${-s}H${-s}Z`; },
    star: (r) => "M" + [...Array(10).keys()].map((n) => {
      const [a, l] = [(n * Math.PI) / 5, n % 2 ? 0.75 * r : 1.6 * r];
      return `${l * Math.sin(a)},${-l * Math.cos(a)}`;
    }).join("L") + "Z",
    x: (r) => SHAPES.cross(1.2 * r),
  };
  function mark(marker, x, y, n = 0) {
    const size = (marker.size ?? 7) / 2;
    const shape = marker.symbol ?? "circle";
    return el("path", {
      d: SHAPES[shape](size),
      transform: `translate(${x},${y})` + (shape === "x" ? " rotate(45)" : ""),
      style: `${ink("fill", one(marker.color, n))};stroke:var(--page);stroke-width:1` +
        (marker.opacity ? `;opacity:${marker.opacity}` : ""),
    });
  }

  /* The frame: grid, ticks, titles. Returns the scales and the room inside. */
  function frame(svg, size, layout, xs, ys, right) {
    const { width, height } = size;
    const kind = (axis) => (axis.type === "category" ? category : numeric);
    const [top, bottom] = [layout.yaxis?.title?.text ? 26 : 10, height - 40];
    const y = kind(layout.yaxis ?? {})(layout.yaxis ?? {}, ys, bottom, top);
    const left = Math.min(width * 0.4, Math.max(28, ...y.ticks.map(([, text]) => wide(text) + 10)));
    const x = kind(layout.xaxis ?? {})(layout.xaxis ?? {}, xs, left, width - right);
    for (const [value, text] of y.ticks) {
      const at = y.at(value);
      svg.append(el("line", { x1: left, x2: width - right, y1: at, y2: at, class: "rule" }));
      svg.append(el("text", { x: left - 6, y: at + 4, "text-anchor": "end", class: "tick" }, fit(text, left - 8)));
    }
    let free = -1e9;
    for (const [value, text] of x.ticks) {
      const [at, half] = [x.at(value), wide(text) / 2];
      if (at - half < free) continue;
      free = at + half + 8;
      svg.append(el("line", { x1: at, x2: at, y1: bottom, y2: bottom + 4, class: "rule" }));
      svg.append(el("text", { x: at, y: bottom + 17, "text-anchor": "middle", class: "tick" }, text));
    }
    svg.append(el("line", { x1: left, x2: width - right, y1: bottom, y2: bottom, class: "edge" }));
    svg.append(el("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "xtitle" },
      layout.xaxis?.title?.text ?? ""));
    svg.append(el("text", { x: 0, y: 12, class: "ytitle" }, fit(layout.yaxis?.title?.text ?? "", width)));
    return { x, y, left, top, bottom };
  }

  function chart(canvas, size, data, layout) {
    const svg = blank(size);
    const named = data.filter((t) => t.name && t.showlegend !== false);
    const names = [...new Set(named.map((t) => t.name))];
    const isLine = (t) => (t.mode ?? "lines").includes("lines");
    const ends = named.filter(isLine);
    const direct = layout.labels && names.length > 1 && ends.length <= LABELS && size.width >= 460;
    const right = direct ? Math.min(size.width * 0.3, Math.max(...ends.map((t) => wide(t.name, 600))) + 14) : 14;
    if (names.length > 1 && !direct && layout.showlegend !== false) canvas.append(legend(named));
    const spread = (t, axis) => t[axis].flatMap((v, n) => {
      const by = t["error_" + axis]?.visible ? t["error_" + axis].array[n] : 0;
      return finite(v) && by ? [v - by, v + by] : [v];
    });
    const all = (axis) => data.flatMap((t) => spread(t, axis));
    const { x, y, left, top, bottom } = frame(svg, size, layout, all("x"), all("y"), right);
    const layer = el("g", { class: "scatterlayer" });
    const [marks, labels] = [[], []];
    svg.append(layer);
    for (const trace of data) {
      const group = el("g", { class: "trace" });
      layer.append(group);
      const points = trace.x.map((v, n) => [x.at(v), y.at(trace.y[n]), n])
        .map(([px, py, n]) => [px, finite(trace.y[n]) && finite(py) && finite(px) ? py : null, n]);
      if (trace.fill) group.append(area(points, trace));
      else if (isLine(trace)) group.append(line(points, trace));
      for (const [px, py, n] of points) {
        if (py === null || trace.fill) continue;
        group.append(...whiskers(trace, n, px, py, x, y));
        if ((trace.mode ?? "lines").includes("markers")) group.append(mark(trace.marker, px, py, n));
        if (trace.hoverinfo !== "skip") marks.push({ x: px, y: py, text: told(trace, n, layout) });
        if (trace.label && one(trace.label, n)) labels.push([one(trace.label, n), px, py]);
      }
      const last = points.findLast(([, py]) => py !== null);
      if (direct && isLine(trace) && named.includes(trace) && last) labels.push([trace.name, last[0], last[1], trace]);
    }
    if (direct) beside(svg, labels, size.width - right + 6, size.width, top, bottom);
    else around(svg, labels, left, size.width);
    canvas.append(svg);
    listen(canvas, svg, marks, 32);
  }
  function told(trace, n, layout) {
    const text = one(trace.text, n);
    if (trace.only) return text;
    const across = layout.xaxis?.title?.text;
    const where = `${across ? across + " " : ""}${short(trace.x[n])}: ${short(trace.y[n])}`;
    return [trace.name, where + (text ? " " + text : "")].filter(Boolean).join("\n");
  }
  function line(points, trace) {
    let [d, on] = ["", false];
    for (const [px, py] of points) {
      if (py !== null) d += `${on ? "L" : "M"}${px.toFixed(1)},${py.toFixed(1)}`;
      on = py !== null;
    }
    const { color, width = 2, dash } = trace.line ?? {};
    return el("path", { d, "stroke-dasharray": DASH[dash],
      style: `fill:none;${ink("stroke", color)};stroke-width:${width}` });
  }
  function area(points, trace) {
    const d = points.filter(([, py]) => py !== null).map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join("L");
    return el("path", { d: d ? `M${d}Z` : "", style: `${ink("fill", trace.fillcolor)};stroke:none` });
  }
  function whiskers(trace, n, px, py, x, y) {
    const found = [];
    const style = "stroke:var(--text);stroke-opacity:.5;stroke-width:1.2";
    const [ex, ey] = ["x", "y"].map((axis) => (trace["error_" + axis]?.visible ? trace["error_" + axis].array[n] : 0));
    if (ex) found.push(el("line", { x1: x.at(trace.x[n] - ex), x2: x.at(trace.x[n] + ex), y1: py, y2: py, style }));
    if (ey) found.push(el("line", { y1: y.at(trace.y[n] - ey), y2: y.at(trace.y[n] + ey), x1: px, x2: px, style }));
    return found;
  }
  /* Names at the ends of lines, moved apart. */
  function beside(svg, labels, x, width, top, bottom) {
    const sorted = labels.filter((l) => l[3]).sort((a, b) => a[2] - b[2]);
    const at = [];
    sorted.forEach((l, n) => at.push(Math.max(l[2], n ? at[n - 1] + 14 : top + 4)));
    for (let n = at.length - 1, most = bottom - 2; n >= 0; n -= 1, most -= 14) at[n] = Math.min(at[n], most);
    sorted.forEach(([name, px, py, trace], n) => {
      svg.append(el("line", { x1: px + 3, y1: py, x2: x - 2, y2: at[n], class: "lead" }));
      svg.append(el("text", { x, y: at[n] + 4, class: "label", style: ink("fill", trace.line.color) },
        fit(name, width - x, 600)));
    });
  }
  /* Names of points, each on a side where it covers no other one; left out where there is none. */
  function around(svg, labels, left, width) {
    const taken = labels.map(([, x, y]) => [x - 5, y - 6, x + 5, y + 6]);
    for (const [name, x, y] of labels) {
      const w = wide(name, 600);
      const sides = [[x + 9, y + 4], [x - 9 - w, y + 4], [x - w / 2, y - 11], [x - w / 2, y + 19]];
      const free = sides.find(([a, b]) => a >= left && a + w <= width && b > 20 &&
        !taken.some((t) => a < t[2] && a + w > t[0] && b - 11 < t[3] && b + 2 > t[1]));
      if (!free) continue;
      taken.push([free[0], free[1] - 11, free[0] + w, free[1] + 2]);
      svg.append(el("text", { x: free[0], y: free[1], class: "label" }, name));
    }
  }

  /* Horizontal bars: a row each, under a heading where several stand together. */
  function bars(canvas, size, data, layout) {
    const rows = [];
    for (const group of new Set(data.flatMap((t) => t.y))) {
      const mine = data.filter((t) => t.y.includes(group));
      if (data.length > 1) rows.push({ heading: group });
      for (const t of mine) {
        const n = t.y.indexOf(group);
        const label = data.length > 1 ? t.name : group;
        rows.push({ label, value: t.x[n], by: t.error_x?.array[n] ?? 0, colour: one(t.marker.color, n),
          pattern: one(t.marker.pattern?.shape, n) ?? "" });
      }
    }
    const [tall, foot] = [21, 44];
    const height = rows.length * tall + foot;
    canvas.style.minHeight = 0;
    const svg = blank({ width: size.width, height });
    const left = Math.min(size.width * 0.42, Math.max(...rows.map((r) => wide(r.label ?? "") + 14)));
    const values = rows.filter((r) => finite(r.value)).flatMap((r) => [r.value - r.by, r.value + r.by]);
    const x = numeric(layout.xaxis ?? {}, [...values, 0], left, size.width - 14);
    const bottom = rows.length * tall + 4;
    for (const [value, text] of x.ticks) {
      svg.append(el("line", { x1: x.at(value), x2: x.at(value), y1: 0, y2: bottom, class: value === 0 ? "edge" : "rule" }));
      svg.append(el("text", { x: x.at(value), y: bottom + 15, "text-anchor": "middle", class: "tick" }, text));
    }
    svg.append(el("text", { x: (left + size.width) / 2, y: bottom + 34, "text-anchor": "middle", class: "xtitle" },
      layout.xaxis?.title?.text ?? ""));
    const marks = [];
    rows.forEach((row, n) => {
      const y = n * tall + tall / 2;
      if (row.heading !== undefined) {
        svg.append(el("text", { x: 0, y: y + 5, class: "heading" }, row.heading));
        return;
      }
      svg.append(el("text", { x: left - 7, y: y + 4, "text-anchor": "end", class: "tick" }, fit(row.label, left - 8)));
      if (!finite(row.value)) return;
      const [a, b] = [x.at(0), x.at(row.value)].sort((p, q) => p - q);
      const box = { x: a, y: y - 7, width: Math.max(1, b - a), height: 14 };
      svg.append(el("rect", { ...box, style: ink("fill", row.colour) }));
      if (row.pattern) svg.append(hatch(box, row.pattern));
      if (row.by) svg.append(el("line", { x1: x.at(row.value - row.by), x2: x.at(row.value + row.by), y1: y, y2: y,
        style: "stroke:var(--text);stroke-opacity:.65;stroke-width:1.4" }));
      const sign = row.value > 0 ? "+" : "";
      marks.push({ x: null, y, text: `${row.label}: ${sign}${short(row.value)}${row.by ? " ± " + short(row.by) : ""}` });
    });
    canvas.append(svg);
    listen(canvas, svg, marks, 12);
  }
  /* What tells bars apart without their colour. */
  function hatch({ x, y, width, height }, shape) {
    let d = "";
    for (let at = x + 4; at <= x + width - 2; at += 7) {
      const end = Math.min(at + 4, x + width);
      if (shape === "-") d += `M${at},${y + height / 2}H${end}`;
      if (shape === ".") d += `M${at},${y + 4}v2M${at},${y + height - 6}v2`;
      if (shape === "/" || shape === "x") d += `M${at},${y + height}L${end},${y}`;
      if (shape === "x") d += `M${at},${y}L${end},${y + height}`;
    }
    return el("path", { d, style: "stroke:var(--page);stroke-width:1.6;fill:none" });
  }

  function map(canvas, size, [trace], layout) {
    const svg = blank(size);
    const { x, y } = frame(svg, size, { ...layout, xaxis: { ...layout.xaxis, type: "category" },
      yaxis: { ...layout.yaxis, type: "category" } }, trace.x, trace.y, 8);
    const [low, high] = [trace.zmin, trace.zmax];
    const marks = [];
    trace.z.forEach((row, r) => row.forEach((value, c) => {
      const [px, py] = [x.at(trace.x[c]), y.at(trace.y[r])];
      const [w, h] = [x.step - 2, Math.abs(y.step) - 2];
      let part = finite(value) && high > low ? (value - low) / (high - low) : 0;
      if (trace.reversescale) part = 1 - part;
      const fill = finite(value) ? `color-mix(in srgb, var(--accent) ${Math.round(100 * part)}%, var(--panel))` : "none";
      svg.append(el("rect", { x: px - w / 2, y: py - h / 2, width: w, height: h, style: `fill:${fill}` }));
      const told = trace.text[r][c];
      svg.append(el("text", { x: px, y: py + 4, "text-anchor": "middle", class: "heatmap-label",
        style: `fill:var(--${part > 0.55 ? "page" : "text"})` }, w < wide(told) ? told.replace(/^★ /, "★") : told));
      const where = `${layout.xaxis.title.text} ${trace.x[c]}, ${layout.yaxis.title.text} ${trace.y[r]}`;
      marks.push({ x: px, y: py, text: `${where}: ${finite(value) ? short(value) : told}` });
    }));
    canvas.append(svg);
    listen(canvas, svg, marks, 60);
  }

  function blank({ width, height }) {
    return el("svg", { class: "main-svg", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  }
  function legend(named) {
    const whole = document.createElement("p");
    whole.className = "legend";
    const seen = new Set();
    for (const trace of named) {
      if (seen.has(trace.name)) continue;
      seen.add(trace.name);
      const item = document.createElement("span");
      item.className = "method";
      const chip = el("svg", { width: 24, height: 12, "aria-hidden": "true" });
      if ((trace.mode ?? "lines").includes("lines"))
        chip.append(line([[1, 6], [23, 6]], { line: { ...trace.line, width: 3 } }));
      if (trace.marker) chip.append(mark({ ...trace.marker, size: 8, opacity: null }, 12, 6));
      item.append(chip, trace.name);
      whole.append(item);
    }
    return whole;
  }
  /* What stands nearest is told where one points, or touches. */
  function listen(canvas, svg, marks, reach) {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    canvas.append(tip);
    const near = (event) => {
      const box = svg.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      let [best, least] = [null, reach * reach];
      for (const mark of marks) {
        const far = (mark.x === null ? 0 : (mark.x - x) ** 2) + (mark.y - y) ** 2;
        if (far < least) [best, least] = [mark, far];
      }
      tip.hidden = best === null;
      if (best === null) return;
      tip.textContent = best.text;
      const [left, top] = [best.x ?? x, best.y + svg.getBoundingClientRect().top - canvas.getBoundingClientRect().top];
      tip.style.left = `${Math.max(0, Math.min(left + 12, box.width - tip.offsetWidth))}px`;
      tip.style.top = `${top + 10}px`;
    };
    svg.addEventListener("pointermove", near);
    svg.addEventListener("pointerdown", near);
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  return (canvas, data, layout) => {
    canvas.replaceChildren();
    const size = { width: Math.floor(canvas.clientWidth) || 320, height: Number(canvas.dataset.height) };
    const kind = data[0]?.type;
    (kind === "bar" ? bars : kind === "heatmap" ? map : chart)(canvas, size, data, layout);
  };
})();
