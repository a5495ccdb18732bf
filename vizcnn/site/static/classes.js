"use strict";
// The pages of the classes: all of them, and one.
{
  const { h, card, isMissing, missing } = ATLAS.elements;
  const { number, percent, many, count, times } = ATLAS.words;
  const { float16 } = ATLAS.decode;
  const { to, className, classLabel, unitName } = ATLAS.places;
  const { photo, face, classFace } = ATLAS.pictures;
  const { bars, classLink, links } = ATLAS.charts;

  const sure = ATLAS.memo((images) => float16(images.sure));

  async function classesPage() {
    const { net } = ATLAS;
    const parts = [...Array(Math.ceil(net.classes.length / net.chunk)).keys()].map((j) => ATLAS.load(`C${j}`));
    const rows = (await Promise.all(parts)).flat();
    const labelled = rows.some((row) => !isMissing(row.right) && row.n > 0);
    const share = (row) => (isMissing(row.right) || !row.n ? -1 : row.right / row.n);
    const order = [...rows.keys()].sort((a, b) => share(rows[b]) - share(rows[a]) || a - b);
    const tile = (c) =>
      h(
        "a",
        {
          class: "tile",
          href: to.class(c),
          "aria-label": `${className(c)}${share(rows[c]) < 0 ? "" : `, ${rows[c].right} of ${rows[c].n} named rightly`}`,
        },
        h("span", { class: "picture" }, classFace(c, { alt: "" })),
        h("span", { class: "class" }, h("b", {}, classLabel(c))),
        h(
          "span",
          { class: "line" },
          isMissing(rows[c].right)
            ? null
            : h("span", {}, rows[c].n ? `${many(rows[c].right)} of ${many(rows[c].n)}` : "no images"),
        ),
        ATLAS.wall.meter(share(rows[c])),
      );
    return {
      crumbs: [["classes"]],
      body: [
        h("h1", {}, count(net.classes.length, "class", "classes")),
        h(
          "p",
          { class: "lead" },
          labelled
            ? "Best known first: how many of each class’s images the network names rightly."
            : "In the order of the network’s outputs.",
          net.classPictures
            ? " The pictures are optimised for the class."
            : net.photos
              ? ` The picture is the surest of ${labelled ? "each class’s images" : "the images that are taken for each"}.`
              : "",
        ),
        h("div", { class: "wall" }, ATLAS.wall.shelve(order.map(tile))),
      ],
    };
  }

  async function classPage(c) {
    const { net } = ATLAS;
    if (!(Number.isInteger(c) && c >= 0 && c < net.classes.length))
      throw new Error(`There are the classes 0 to ${net.classes.length - 1}.`);
    const [chunk, images] = await Promise.all([ATLAS.load(`C${Math.floor(c / net.chunk)}`), ATLAS.load("images")]);
    const row = chunk[c % net.chunk];
    const elsewhere = await inOther(c);
    const all = net.classes.length;
    const before = to.class((c - 1 + all) % all);
    const after = to.class((c + 1) % all);
    return {
      crumbs: [["classes", "#/classes"], [className(c)]],
      keys: { before, after, up: "#/classes" },
      body: [
        h(
          "div",
          { class: "head" },
          h("div", { class: "portrait" }, classFace(c, { eager: true })),
          h(
            "div",
            { class: "words" },
            h("h1", {}, classLabel(c)),
            h("p", { class: "lead" }, known(row), elsewhere),
            h("p", { class: "soft small" }, `Class ${c} of ${many(all)}. `, pictureText(row.picture)),
          ),
          ATLAS.unit.steps(before, after, "class"),
        ),
        examples(row, c, ATLAS.unit.answers(images), sure(images)),
        h("div", { class: "columns" }, votes(row.votes), mistaken(row), ATLAS.notes.notesCard(`class ${c}`)),
        early(row.early),
      ],
    };
  }

  // How many of a class’s images another network names rightly, where there is one.
  async function inOther(c) {
    const { compare } = ATLAS.net;
    if (!compare || compare.same) return null;
    const { answers } = await ATLAS.load("changes");
    const found = isMissing(answers) || isMissing(answers.classes) ? null : answers.classes.find(([own]) => own === c);
    return found && ` ${compare.other} names ${many(found[2])} of them.`;
  }

  function known(row) {
    if (isMissing(row.right)) return row.right.missing;
    if (!row.n) return "No image of this class is here.";
    return `${many(row.right)} of ${count(row.n, "image")} of this class ${row.right === 1 || row.n === 1 ? "is" : "are"} named rightly.`;
  }

  function pictureText(picture) {
    if (isMissing(picture)) return picture ? `No picture is optimised for it. ${picture.missing}` : "";
    return `At the left what its logit would like to see; it reaches ${number(picture)} there.`;
  }

  function examples(row, c, { label, said }, sure) {
    if (!row.examples.length) return null;
    if (!ATLAS.net.photos)
      return card("Examples", h("p", { class: "soft" }, "This atlas was made without the pixels of images."));
    const chips = row.examples.map((n) =>
      h(
        "a",
        { class: "chip", href: to.image(n) },
        photo(n, label[n] < 0 ? `Image ${n}` : className(label[n])),
        label[n] >= 0 &&
          h("span", { class: said[n] === c ? "plus" : "minus" }, said[n] === c ? "✓ " : "✗ ", classLabel(said[n])),
        h("span", {}, percent(sure[n])),
      ),
    );
    const title = isMissing(row.right) ? "Images that are taken for it, surest first" : "Examples, surest first";
    return card(title, h("div", { class: "chips wide" }, chips));
  }

  function votes(found) {
    if (isMissing(found)) return card("What speaks for it, and against", missing(found));
    const rows = found.map(([layer, unit, value, weight]) => ({ layer, unit, value, how: `weight ${number(weight)}` }));
    const text = "Units of the last hidden layer: weight × mean response on this class’s images, in logits.";
    const some = (title, chosen, say) =>
      chosen.length > 0 && card(title, h("p", { class: "small soft" }, say), links(chosen));
    return [
      some(
        "What speaks for it",
        rows.filter((row) => row.value > 0),
        text,
      ),
      some(
        "What speaks against it",
        rows.filter((row) => row.value < 0).reverse(),
        "The same, below zero: on the class’s own images these cost it.",
      ),
    ];
  }

  function mistaken(row) {
    const list = (pairs, say) =>
      pairs.length
        ? bars(pairs.map(([c, n]) => [classLink(c), n, say(n)]))
        : h("p", { class: "soft" }, "Nothing, here.");
    if (isMissing(row.right)) return card("Mistaken for", missing(row.right));
    return card(
      "Mistaken for",
      list(row.as, (n) => `${many(n)} of ${many(row.n)}`),
      h("h3", {}, "Others mistaken for it"),
      list(row.from, many),
    );
  }

  function early(found) {
    const title = "Where it begins to be told apart";
    if (isMissing(found)) return card(title, missing(found));
    const chip = (layer, [k, ratio]) =>
      h(
        "a",
        { class: "chip", href: to.unit(layer, k), title: unitName(layer, k) },
        face(layer, k, { alt: "" }),
        h("span", {}, h("b", {}, times(ratio)), ` ${k}`),
      );
    return card(
      title,
      h(
        "p",
        { class: "small soft" },
        "In each layer the units that respond most to its images, as a multiple of their average over the classes.",
      ),
      h(
        "div",
        { class: "per-layer" },
        found.map(([layer, units]) =>
          h(
            "div",
            {},
            h("a", { class: "name", href: to.layer(layer) }, ATLAS.net.layers[layer].name),
            h(
              "div",
              { class: "chips four" },
              units.map((unit) => chip(layer, unit)),
            ),
          ),
        ),
      ),
    );
  }

  ATLAS.pages.classes = classesPage;
  ATLAS.pages.class = classPage;
  ATLAS.classes = { sure };
}
