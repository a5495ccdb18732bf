"use strict";
// Bars, histograms, facts and lists of units.
{
  const { h, svg, isMissing } = ATLAS.elements;
  const { number, percent, many, signed } = ATLAS.words;
  const { to, className, classLabel, unitName, channelName } = ATLAS.places;
  const { face, kernel, blank } = ATLAS.pictures;

  // rows: [label, value, text]; both: whether bars go to both sides of the middle.
  function bars(rows, { both = false } = {}) {
    const end = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-12);
    return h(
      "div",
      { class: "bars" },
      rows.map(([label, value, text]) => {
        const share = (Math.abs(value) / end) * (both ? 50 : 100);
        const left = !both ? 0 : value < 0 ? 50 - share : 50;
        return [
          h("span", { class: "label" }, label),
          h(
            "span",
            { class: both ? "track both" : "track" },
            h("i", { class: value < 0 ? "minus" : null, style: { width: `${share}%`, left: `${left}%` } }),
          ),
          h("span", { class: "value" }, text ?? number(value)),
        ];
      }),
    );
  }

  const classLink = (c) => (c < 0 ? "no label" : h("a", { href: to.class(c), title: className(c) }, classLabel(c)));

  // pairs: [name, value]; values that are missing are left out.
  function facts(pairs) {
    const shown = pairs.filter((pair) => pair && !isMissing(pair[1]));
    return h(
      "dl",
      { class: "facts" },
      shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
  }

  const WIDTH = 360;
  const HEIGHT = 150;
  const BASE = HEIGHT - 20;
  const START = 46; // px: left of it is the bar of zeros

  // hist: zeros, edges, first bin, counts, as entries.py has it. Heights are logarithmic.
  function histogram([zeros, own, first, counts], allEdges) {
    const edges = allEdges[own].slice(first, first + counts.length + 1);
    const total = zeros + counts.reduce((sum, n) => sum + n, 0);
    const share = total ? zeros / total : 0;
    const top = Math.log1p(Math.max(zeros, ...counts, 1));
    const height = (n) => (n > 0 ? Math.max(2, (Math.log1p(n) / top) * (BASE - 16)) : 0);
    const wide = (WIDTH - START) / Math.max(1, counts.length);
    const edge = (n) => (edges[n] == null ? "beyond" : number(edges[n]));
    const middle = Math.floor(counts.length / 2);
    const ticks = counts.length > 3 ? [0, middle, counts.length] : counts.length ? [0, counts.length] : [];
    const anchor = (n) => (n === 0 ? "start" : n === counts.length ? "end" : "middle");
    const said =
      `Histogram of ${many(total)} activations: ${percent(share, 1)} are zero` +
      (counts.length ? `, the others lie from ${edge(0)} to ${edge(counts.length)}` : "");
    return svg(
      "svg",
      { class: "histogram", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said },
      svg("rect", { class: "zero", x: 0, y: BASE - height(zeros), width: 22, height: height(zeros), rx: 2 }),
      svg("text", { x: 11, y: HEIGHT - 6, "text-anchor": "middle" }, "= 0"),
      svg("text", { x: 0, y: BASE - height(zeros) - 4 }, percent(share)),
      counts.map((n, bin) =>
        svg(
          "rect",
          { x: START + bin * wide, y: BASE - height(n), width: Math.max(1, wide - 1.5), height: height(n), rx: 1 },
          svg("title", {}, `${many(n)} from ${edge(bin)} to ${edge(bin + 1)}`),
        ),
      ),
      svg("line", { x1: 0, x2: WIDTH, y1: BASE, y2: BASE }),
      ticks.map((n) =>
        svg(
          "text",
          { x: START + n * wide - (n === counts.length ? 1 : 0), y: HEIGHT - 6, "text-anchor": anchor(n) },
          edge(n),
        ),
      ),
    );
  }

  // Units with what each adds. rows: {layer, unit, value, kernel, how}; layer null: a channel of the image.
  function links(rows) {
    const kernels = rows.some((row) => row.kernel);
    return h(
      "ol",
      { class: kernels ? "links kernels" : "links" },
      rows.map((row) => {
        const isImage = row.layer == null;
        const name = isImage ? channelName(row.unit) : unitName(row.layer, row.unit);
        const inside = [
          isImage ? blank("▦", "") : face(row.layer, row.unit, { alt: "" }),
          kernels && (row.kernel ? kernel(row.kernel, "") : h("span")),
          h("span", { class: "name" }, name, row.how && h("span", { class: "soft" }, ` ${row.how}`)),
          h("span", { class: row.value < 0 ? "value minus" : "value plus" }, signed(row.value)),
        ];
        return h("li", {}, isImage ? h("div", {}, inside) : h("a", { href: to.unit(row.layer, row.unit) }, inside));
      }),
    );
  }

  ATLAS.charts = { bars, classLink, facts, histogram, links };
}
