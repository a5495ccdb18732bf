"use strict";
// What each depth responds to, on one page: of each layer a few units, their filter or picture beside what excites them.
{
  const { h, svg, fill, isMissing, missing } = ATLAS.elements;
  const { number, percent, many, count, size } = ATLAS.words;
  const { to, hidden, making, className, classLabel, unitName, isPictured, isWhole } = ATLAS.places;
  const { face, crop, boxed, ringed, kernel } = ATLAS.pictures;

  const PIECES = 3; // of a unit
  const SIDE = 56; // px of the drawing of how much one unit sees

  async function depthsPage() {
    const { net } = ATLAS;
    const [depths, images] = await Promise.all([ATLAS.load("depths"), ATLAS.load("images")]);
    const { label } = ATLAS.unit.answers(images);
    const units = depths.flatMap((depth) => depth.units);
    const reasons = [...new Set(depths.map(whyNoPicture).filter(Boolean))];
    const once = reasons.length === 1 && reasons[0]; // what would be said of many layers is said above them
    return {
      crumbs: [["depths"]],
      keys: { before: null, after: null },
      body: [
        h("h1", {}, "What each depth responds to"),
        h("p", { class: "lead" }, lead(depths, units)),
        h("p", { class: "soft small" }, explain(depths, units)),
        once && missing({ missing: once }, "Where nothing stands at the left, no picture was optimised."),
        h(
          "ol",
          { class: "depths" },
          depths.map((depth) => section(depth, label, once)),
        ),
        net.classes.length > 0 &&
          h("p", {}, h("a", { href: "#/classes" }, `The ${many(net.classes.length)} classes that it answers →`)),
      ],
    };
  }

  function lead(depths, units) {
    const all = hidden().length;
    const which = depths.length < all ? `${many(depths.length)} of ${many(all)} layers, ` : "";
    return `From the image to the answer, in the order the network runs: ${which}${count(units.length, "unit")} with what each looks for${ATLAS.net.photos ? ` beside what excites it most among ${count(ATLAS.net.images, "image")}` : ""}.`;
  }

  // The rule by which units were chosen, and how to read what stands beside them.
  function explain(depths, units) {
    const ranked = units.filter((unit) => unit.select != null).length;
    const rule = ranked
      ? "They are the most selective units of each layer for a class (Morcos et al. 2018), dead ones apart"
      : "They are the units of each layer with the highest mean response, dead ones apart";
    const others =
      ranked && ranked < units.length ? "; where selectivity says nothing, those with the highest mean" : "";
    return [
      `${rule}${others}: the clearest ones, not the usual ones, and each layer’s wall has them all.`,
      large(units),
      small(depths),
    ]
      .filter(Boolean)
      .join(" ");
  }

  function large(units) {
    const kernels = units.filter((unit) => unit.kernel);
    const colours = kernels.some((unit) => unit.kernel[1] === 3) ? "grey is zero" : "blue is below zero, orange above";
    const pictures = units.some((unit) => !unit.kernel && !isMissing(unit.picture));
    const filter = kernels.length > 0 && `the filter of a unit that reads the image itself (${colours})`;
    const picture =
      pictures && (filter ? "for others a picture optimised to excite them" : "a picture optimised to excite the unit");
    return (filter || picture) && `Large: ${[filter, picture].filter(Boolean).join(", ")}.`;
  }

  function small(depths) {
    if (!ATLAS.net.photos) return "This atlas was made without the pixels of images.";
    const some = (test) =>
      depths.some(({ layer, units }) => units.some((u) => u.crops.some((one) => test(one, layer))));
    const pieces = some(([, , , box]) => !isWhole(box));
    const rings = some(([, , place, box], i) => place && isWhole(box) && !isMissing(ATLAS.net.layers[i].field));
    const parts = [
      pieces && "the piece that its strongest place sees, and below where that lies in the photograph",
      !pieces && "whole photographs",
      rings && "a ring marks the strongest place of a unit that sees all of them",
    ];
    return `Small: ${parts.filter(Boolean).join("; ")}.`;
  }

  function section(depth, label, once) {
    const { layer: i, units } = depth;
    const layer = ATLAS.net.layers[i];
    const reason = whyNoPicture(depth);
    return h(
      "li",
      { class: "card depth" },
      h(
        "div",
        { class: "depth-head" },
        !isMissing(layer.field) && extent(layer.field.size),
        h(
          "div",
          { class: "words" },
          h("h2", {}, h("a", { href: to.layer(i) }, layer.name)),
          h("p", { class: "small soft numbers" }, [making(layer), sees(layer), share(i)].filter(Boolean).join(" · ")),
        ),
      ),
      !units.length && h("p", { class: "soft" }, "No image excites any of its units."),
      reason && !once && missing({ missing: reason }, "No picture was optimised for these units."),
      h(
        "div",
        { class: ATLAS.net.photos ? "specimens" : "specimens close" },
        units.map((unit) => specimen(i, layer, unit, !reason, label)),
      ),
    );
  }

  // Why none of the units of a layer has a picture or a filter; nothing where one has.
  function whyNoPicture({ layer: i, units }) {
    if (!units.length || units.some((unit) => isShown(i, unit))) return "";
    return units[0].picture.missing;
  }

  const isShown = (i, unit) => Boolean(unit.kernel) || isPictured(i, unit.unit);

  function sees(layer) {
    if (isMissing(layer.field)) return layer.shape.length > 1 ? "what it sees is not known" : "no places";
    const [, height, width] = ATLAS.net.input;
    const [rows, columns] = layer.field.size;
    const part = (Math.min(rows, height) * Math.min(columns, width)) / (height * width);
    const much = part < 1 ? `${percent(part, part < 0.1 ? 1 : 0)} of the image` : "no less than the image";
    return `sees ${size(layer.field.size)} px, ${much}`;
  }

  function share(i) {
    const { layers, parameters } = ATLAS.net;
    const place = `layer ${many(hidden().indexOf(i) + 1)} of ${many(hidden().length)}`;
    const part = layers[i].parameters / parameters;
    return part ? `${place}, ${percent(part, part < 0.1 ? 1 : 0)} of the parameters` : place;
  }

  // The field of a unit in the middle, inside the image.
  function extent([rows, columns]) {
    const [, height, width] = ATLAS.net.input;
    const scale = SIDE / Math.max(height, width);
    const rect = (own, high, wide) => {
      const [tall, broad] = [Math.max(2, Math.min(high, height) * scale), Math.max(2, Math.min(wide, width) * scale)];
      const [x, y] = [(SIDE - broad) / 2 + 1, (SIDE - tall) / 2 + 1];
      return svg("rect", { class: own, x, y, width: broad, height: tall, rx: 1.5 });
    };
    return svg(
      "svg",
      { class: "extent", width: SIDE + 2, height: SIDE + 2, "aria-hidden": "true" },
      rect("whole", height, width),
      rect("own", rows, columns),
    );
  }

  function specimen(i, layer, unit, pictured, label) {
    const k = unit.unit;
    const name = unitName(i, k);
    const large = unit.kernel
      ? fill(kernel(unit.kernel, `Filter of unit ${name}`))
      : isPictured(i, k)
        ? face(i, k, { alt: `Picture optimised for unit ${name}` })
        : h("div", { class: "blank" }, "no picture");
    const said = [
      unit.best >= 0 && `most for ${classLabel(unit.best)}`,
      unit.select != null ? `selectivity ${number(unit.select, 2)}` : `mean ${number(unit.mean, 2)}`,
    ];
    return h(
      "figure",
      { class: pictured && unit.crops.length ? "specimen" : "specimen alone" },
      pictured && h("div", { class: "large" }, large),
      unit.crops.length > 0 &&
        h(
          "div",
          { class: "seen" },
          examples(unit.crops).map((one) => example(one, layer, label)),
        ),
      h("figcaption", {}, h("a", { href: to.unit(i, k) }, h("b", {}, name)), ` ${said.filter(Boolean).join(", ")}`),
    );
  }

  // A whole photograph takes the place of a piece and of where that lies: there is room for twice as many.
  const examples = (crops) => (crops.every(([, , , box]) => isWhole(box)) ? crops : crops.slice(0, PIECES));

  function example([n, value, place, box], layer, label) {
    const what = `image ${n}, ${className(label[n])}, response ${number(value)}`;
    if (!box || isWhole(box)) return h("div", {}, ringed(n, layer, place, `The whole ${what}`));
    return h("div", {}, crop(n, box, `Piece of ${what}`), boxed(n, box, ""));
  }

  ATLAS.pages.depths = depthsPage;
}
