"use strict";
// The first page: the network in the order in which it runs, and what is known of it as a whole.
{
  const { h, svg, replace, isMissing, missing, breakable } = ATLAS.elements;
  const { many, percent, size, count } = ATLAS.words;
  const { to, hidden, making, isSum, arePictured } = ATLAS.places;
  const { face } = ATLAS.pictures;
  const { facts } = ATLAS.charts;

  const SPINE = 68; // px from the left: the line along which the layers stand

  function overview() {
    const { net } = ATLAS;
    const layers = hidden().map((i) => net.layers[i]);
    const units = layers.reduce((sum, layer) => sum + layer.shape[0], 0);
    const first = layers.find((layer) => !isMissing(layer.field));
    return {
      crumbs: [],
      body: [
        mosaic(),
        h("h1", {}, net.title),
        h(
          "p",
          { class: "lead" },
          `What each of ${count(units, "unit")} in ${count(layers.length, "layer")} responds to, what each is made of, and what happens without it; measured on ${count(net.images, "image")}.`,
        ),
        facts([
          ["units", many(units)],
          net.classes.length > 0 && ["classes", h("a", { href: "#/classes" }, many(net.classes.length))],
          ["parameters", many(net.parameters)],
          ["input", size(net.input)],
          ["accuracy here", isMissing(net.accuracy) ? net.accuracy : percent(net.accuracy, 1)],
          ["dead units", total(layers, "dead")],
          ["always on", total(layers, "always")],
        ]),
        net.compare && h("p", {}, h("a", { href: "#/changes" }, `What changed from ${net.compare.other} →`)),
        isMissing(net.accuracy) && net.accuracy && missing(net.accuracy, "Accuracy was not measured."),
        h("h2", {}, "The network, in the order it runs"),
        h(
          "p",
          { class: "soft small" },
          net.graph
            ? "Each line is a layer with weights, whose units are read as it gives them, before any norm and activation function."
            : "Each line is a place where units are read, behind the activation function where there is one: what is zero there is zero for the rest of the network.",
          " The pictures are of its most selective units, without labels of those with the largest means.",
        ),
        h("p", {}, h("a", { href: "#/depths" }, "What each depth responds to, on one page →")),
        net.graph && missing(net.graph, "Its paths are not drawn."),
        diagram(),
        h(
          "p",
          { class: "soft small" },
          !net.graph &&
            "A unit is dead if it is never above zero on these images, and always on if it is zero in less than 1% of all places. ",
          first &&
            "What a layer sees is the receptive field of one unit; where that is larger than the input, it reaches into the padding.",
        ),
        made(net.origin),
      ],
    };
  }

  function total(layers, what) {
    const known = layers.filter((layer) => !isMissing(layer[what]));
    const sum = known.reduce((all, layer) => all + layer[what], 0);
    return known.length ? (sum ? many(sum) : "none") : null;
  }

  function mosaic() {
    const chosen = hidden()
      .filter(arePictured)
      .flatMap((i) => ATLAS.net.layers[i].strongest.slice(0, 8).map((k) => [i, k]));
    const step = Math.ceil(chosen.length / 44);
    const shown = chosen.filter((_, n) => n % step === 0);
    return (
      shown.length > 7 &&
      h(
        "div",
        { class: shown.length < 30 ? "mosaic one" : "mosaic", "aria-hidden": "true" },
        shown.map(([i, k]) => face(i, k, { alt: "" })),
      )
    );
  }

  function made(origin) {
    const options = origin.options.map(([name, value]) => `${name} ${value}`).join(", ");
    return h(
      "p",
      { class: "made small soft" },
      `Made ${origin.made} by vizcnn ${origin.version} from ${origin.model}, weights `,
      h("code", {}, origin.weights.slice(0, 16)),
      ` and ${origin.data}${options ? ` (${options})` : ""}.`,
      !ATLAS.net.photos && " Images of the data set are left out.",
    );
  }

  function diagram() {
    const { layers } = ATLAS.net;
    const box = h("div", { class: "net" });
    const drawing = svg("svg", { class: "arcs", "aria-hidden": "true" });
    const rows = layers.map((layer, i) => row(layer, i));
    box.append(drawing);
    rows.forEach((line, i) => {
      const { stage } = layers[i];
      if (stage && stage !== layers[i - 1]?.stage) box.append(h("h3", { class: "stage" }, stage));
      box.append(line);
    });
    const draw = () => box.isConnected && drawPaths(drawing, box, rows);
    new ResizeObserver(draw).observe(box);
    requestAnimationFrame(draw);
    return [box, legend()];
  }

  function row(layer, i) {
    const [channels, rows, columns] = layer.shape;
    const sees = !isMissing(layer.field) && `sees ${size(layer.field.size)} px`;
    const zeros = !isMissing(layer.zeros) && !layer.output && `${percent(layer.zeros)} zeros`;
    const dead = !isMissing(layer.dead) && layer.dead > 0 && `${many(layer.dead)} dead`;
    const always = !isMissing(layer.always) && layer.always > 0 && `${many(layer.always)} always on`;
    const said = [layer.parameters > 0 && count(layer.parameters, "parameter"), sees, zeros, dead, always].filter(Boolean).join(" · ");
    const what = rows ? ` maps of ${rows}×${columns}` : layer.output ? " classes" : " units";
    return h(
      "a",
      { class: "row", href: to.layer(i) },
      h(
        "span",
        { class: "what" },
        h("b", {}, breakable(layer.name)),
        h("span", { class: "small soft" }, making(layer)),
      ),
      h("span", { class: "glyph" }, block(layer), h("span", {}, h("strong", {}, many(channels)), what)),
      h(
        "span",
        { class: "strip-and-facts" },
        layer.strongest.length > 0 &&
          h(
            "span",
            { class: "strip" },
            layer.strongest.map((k) => face(i, k, { alt: "" })),
          ),
        h("span", { class: "small soft numbers" }, said),
      ),
    );
  }

  // A block as wide and high as the layer's maps, on a scale of square roots.
  function block(layer) {
    const [, rows, columns] = layer.shape;
    const side = (length, of) => Math.max(5, 34 * Math.sqrt(Math.min(1, length / of)));
    const [height, width] = rows ? [side(rows, ATLAS.net.input[1]), side(columns, ATLAS.net.input[2])] : [38, 6];
    const sheets = rows ? [3, 1.5, 0] : [0];
    return svg(
      "svg",
      { width: 48, height: 42, "aria-hidden": "true" },
      sheets.map((off) => svg("rect", { x: 1 + off * 1.4, y: 21 - height / 2 - off + 2, width, height, rx: 1.5 })),
    );
  }

  // Every path but that from the line before: [from, to, whether as it is].
  function arcs() {
    return ATLAS.net.layers.flatMap((layer, i) =>
      layer.paths
        .filter((path, p) => p > 0 || (path.source ?? -1) !== i - 1)
        .map((path) => [path.source ?? -1, i, !path.weights]),
    );
  }

  function drawPaths(drawing, box, rows) {
    const { layers } = ATLAS.net;
    const middles = rows.map((line) => line.offsetTop + line.offsetHeight / 2);
    const above = middles[0] - 30;
    const at = (i) => (i < 0 ? above : middles[i]);
    drawing.setAttribute("height", box.offsetHeight);
    replace(
      drawing,
      layers.map((layer, i) => {
        const follows = !layer.paths.length || (layer.paths[0].source ?? -1) === i - 1;
        return follows && svg("line", { class: "spine", x1: SPINE, x2: SPINE, y1: at(i - 1), y2: at(i) });
      }),
      arcs().map(([from, until, same]) => {
        const out = SPINE - Math.min(60, 26 + (until - from) * 6);
        return svg("path", {
          class: same ? "arc" : "arc weighted",
          d: `M${SPINE} ${at(from)} C${out} ${at(from) + 14}, ${out} ${at(until) - 14}, ${SPINE - 9} ${at(until)}`,
        });
      }),
      layers.map((layer, i) => [
        svg("circle", { class: "dot", cx: SPINE, cy: at(i), r: isSum(layer) ? 8 : 5 }),
        isSum(layer) && svg("text", { class: "sum", x: SPINE, y: at(i) + 4 }, "+"),
      ]),
    );
  }

  function legend() {
    const kinds = new Set(arcs().map(([, , same]) => same));
    return h(
      "p",
      { class: "legend small soft" },
      kinds.has(true) && h("span", {}, h("i"), "path, added as it is"),
      kinds.has(false) && h("span", {}, h("i", { class: "weighted" }), "path through weights"),
    );
  }

  ATLAS.pages.overview = overview;
  ATLAS.pages.made = made;
}
