"use strict";
// The pages of the images: those that were looked at closely, and any other that a unit or a class shows.
{
  const { h, replace, card, isMissing, missing } = ATLAS.elements;
  const { number, percent, many, count } = ATLAS.words;
  const { int8 } = ATLAS.decode;
  const { to, className, classLabel, unitName } = ATLAS.places;
  const { photo, frame, face } = ATLAS.pictures;
  const { bars, classLink } = ATLAS.charts;

  async function imagesPage() {
    const images = await ATLAS.load("images");
    const { label, said } = ATLAS.unit.answers(images);
    const chip = (n) =>
      h(
        "a",
        { class: "chip", href: to.image(n) },
        photo(n, label[n] < 0 ? `Image ${n}` : className(label[n])),
        verdict(label[n], said[n]),
      );
    const { pages, photos } = ATLAS.net;
    return {
      crumbs: [["images"]],
      body: [
        h("h1", {}, "Images"),
        h(
          "p",
          { class: "lead" },
          photos
            ? `${count(pages.length, "image")} that ${pages.length === 1 ? "was" : "were"} looked at closely.`
            : "Images of the data set are left out of this atlas.",
        ),
        photos && h("div", { class: "chips wide" }, pages.map(chip)),
      ],
    };
  }

  function verdict(label, said) {
    if (said < 0) return h("span", {}, classLabel(label));
    if (label < 0) return h("span", {}, classLabel(said));
    if (label === said) return h("span", { class: "plus" }, `✓ ${classLabel(said)}`);
    return [h("span", { class: "minus" }, `✗ ${classLabel(said)}`), h("span", {}, `is ${classLabel(label)}`)];
  }

  async function imagePage(n) {
    const { net } = ATLAS;
    const images = await ATLAS.load("images");
    const { label, said } = ATLAS.unit.answers(images);
    if (!(Number.isInteger(n) && n >= 0 && n < label.length))
      throw new Error(`There are the images 0 to ${label.length - 1}.`);
    const at = net.pages.indexOf(n);
    const around = (step) => to.image(net.pages[(at + step + net.pages.length) % net.pages.length]);
    const [page, names] = await Promise.all([
      at < 0 ? null : ATLAS.load(`I${n}`),
      net.photos ? ATLAS.load(`N${Math.floor(n / net.names)}`) : null,
    ]);
    const hand = net.hand.find(([, chosen]) => chosen.includes(n));
    return {
      crumbs: [["images", "#/images"], [String(n)]],
      keys: { up: "#/images", before: page && around(-1), after: page && around(1) },
      body: [
        h(
          "div",
          { class: "head" },
          h(
            "div",
            { class: "words" },
            h("h1", {}, label[n] < 0 ? `Image ${n}` : classLabel(label[n])),
            h(
              "p",
              {},
              tag(label[n], said[n]),
              " ",
              h("span", { class: "soft small name" }, names ? names[n % net.names] : `image ${n}`),
            ),
          ),
          page && ATLAS.unit.steps(around(-1), around(1), "image", `${at + 1} of ${many(net.pages.length)}`),
        ),
        h(
          "div",
          { class: "columns" },
          net.photos && card(null, maps(n, page, label[n])),
          h(
            "div",
            { class: "stacked" },
            card(
              "The answer",
              answer(page, said[n], ATLAS.classes.sure(images)[n]),
              label[n] >= 0 && h("p", { class: "small soft below" }, "Its class: ", classLink(label[n])),
              hand &&
                h(
                  "p",
                  {},
                  h(
                    "a",
                    { href: to.hand(hand[0], net.layers[hand[0]].strongest[0] ?? 0, n) },
                    "Compute a unit on this image by hand →",
                  ),
                ),
            ),
            ATLAS.notes.notesCard(`image ${n}`),
          ),
        ),
        page && fired(n, page.fired),
      ],
    };
  }

  function tag(label, said) {
    if (label < 0 || said < 0) return null;
    return label === said
      ? h("span", { class: "tag good" }, "✓ named rightly")
      : h("span", { class: "tag bad" }, `✗ taken for ${classLabel(said)}`);
  }

  function answer(page, said, sure) {
    const rows = page?.answers.length ? page.answers : said < 0 ? [] : [[said, sure]];
    if (!rows.length) return h("p", { class: "soft" }, "It names no class.");
    if (rows.some(([, share]) => share == null || Number.isNaN(share))) return h("p", {}, classLink(rows[0][0]));
    return bars(rows.map(([c, share]) => [classLink(c), share, percent(share, 1)]));
  }

  function maps(n, page, label) {
    const alt = label < 0 ? `Image ${n}` : `Image ${n}: ${className(label)}`;
    const picture = photo(n, alt, { eager: true });
    if (!page || isMissing(page.maps)) {
      const why = page
        ? missing(page.maps, "No maps.")
        : h(
            "p",
            { class: "small soft" },
            `Maps were made for ${count(ATLAS.net.pages.length, "image")}, and not for this one.`,
          );
      return [ATLAS.overlay.overlay(picture, []), why];
    }
    return ATLAS.overlay.overlay(
      picture,
      page.maps.map((map) => ({
        name: map.method,
        meaning: map.meaning,
        target: map.target,
        rows: map.size[0],
        columns: map.size[1],
        values: int8(map.values),
        end: map.end,
        signed: map.signed,
        trust: map.trust,
      })),
    );
  }

  // The units nearest to their highest, and, on a photograph beside them, what the strongest place of one sees.
  function fired(n, found) {
    const title = "Which units fired most";
    if (isMissing(found)) return card(title, missing(found));
    const shot = h("div", { class: "shot" }, photo(n, `Image ${n}, with what a unit sees marked`));
    const said = h(
      "p",
      { class: "small soft", role: "status" },
      "Point at a unit, or press its percentage, to see where it looked.",
    );
    let marked = null;
    const show = (layer, k, box) => {
      marked?.remove();
      marked = box ? frame(box) : null;
      if (marked) shot.append(marked);
      replace(
        said,
        `${unitName(layer, k)}: `,
        box
          ? `rows ${number(box[0])} to ${number(box[2])}, columns ${number(box[1])} to ${number(box[3])}.`
          : "it sees the whole image.",
      );
    };
    const chip = (layer, [k, value, share, box]) => {
      const look = () => show(layer, k, box);
      return h(
        "div",
        { class: "chip" },
        h(
          "a",
          { href: to.unit(layer, k), "aria-label": `Unit ${unitName(layer, k)}`, pointerenter: look, focus: look },
          face(layer, k, { alt: "" }),
          h("span", { class: "name" }, k),
        ),
        h(
          "button",
          {
            type: "button",
            class: "plain",
            "aria-label": `Show where unit ${unitName(layer, k)} looked: ${percent(share)} of its highest`,
            title: `response ${number(value)}`,
            click: look,
            pointerenter: look,
            focus: look,
          },
          percent(share),
        ),
      );
    };
    const layers = [...found].reverse().map(([layer, units]) =>
      h(
        "div",
        {},
        h("a", { class: "name", href: to.layer(layer) }, ATLAS.net.layers[layer].name),
        h(
          "div",
          { class: "chips five" },
          units.map((unit) => chip(layer, unit)),
        ),
      ),
    );
    return card(
      title,
      h(
        "p",
        { class: "small soft" },
        "In each layer those nearest to the highest that any image gets from them (100%).",
      ),
      h("div", { class: "beside" }, h("div", { class: "aside" }, shot, said), h("div", { class: "per-layer" }, layers)),
    );
  }

  ATLAS.pages.images = imagesPage;
  ATLAS.pages.image = imagePage;
}
