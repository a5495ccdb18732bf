"use strict";
// The page of a unit: what excites it, what it would like to see, how often and for what, and what happens without it.
{
  const { breakable, h, fill, card, isMissing, missing } = ATLAS.elements;
  const { number, percent, many, count, signed, times, size } = ATLAS.words;
  const { int32 } = ATLAS.decode;
  const { to, className, classLabel, unitName, isWhole, handImages } = ATLAS.places;
  const { crop, boxed, ringed, face, kernel } = ATLAS.pictures;
  const { bars, classLink, histogram, links } = ATLAS.charts;

  // classes: how many there are images of, by label or, without any, by answer.
  const answers = ATLAS.memo((images) => {
    const [label, said] = [int32(images.label), int32(images.said)];
    const known = label.some((c) => c >= 0) ? label : said;
    return { label, said, classes: new Set(known.filter((c) => c >= 0)).size };
  });

  async function unitPage(i, k) {
    const { net } = ATLAS;
    const layer = net.layers[i];
    if (!(Number.isInteger(k) && k >= 0 && k < layer.shape[0]))
      throw new Error(`${layer.name} has the units 0 to ${layer.shape[0] - 1}.`);
    const [chunk, images] = await Promise.all([ATLAS.load(`U${i}-${Math.floor(k / net.chunk)}`), ATLAS.load("images")]);
    const unit = chunk.units[k % net.chunk];
    const own = ATLAS.wall.listOf(i);
    const list = own.includes(k) ? own : [...Array(layer.shape[0]).keys()];
    const at = list.indexOf(k);
    const before = to.unit(i, list[(at - 1 + list.length) % list.length]);
    const after = to.unit(i, list[(at + 1) % list.length]);
    const by = handImages(i);
    const beside = await ATLAS.compare.section(i, k, unit, answers(images));
    return {
      crumbs: [[layer.name, to.layer(i)], [String(k)]],
      keys: { before, after, up: to.layer(i) },
      unit: { layer: i, unit: k },
      body: [
        h(
          "div",
          { class: "head" },
          h(
            "div",
            { class: "words" },
            h("h1", {}, h("a", { href: to.layer(i) }, layer.name), "/", k),
            h("p", { class: "lead" }, sentence(unit)),
            h("p", { class: "soft small" }, where(layer)),
          ),
          steps(before, after, "unit", `${many(at + 1)} of ${many(list.length)}`),
        ),
        excites(unit, layer, answers(images)),
        beside,
        h(
          "div",
          { class: "columns" },
          likes(i, k, unit),
          often(unit, chunk.edges),
          responds(unit),
          without(unit.effect, answers(images).classes),
          linksCard("What drives it", `The units that it reads, by ${unit.are[0]}.`, unit.reads, (link) =>
            pathName(layer, link[2]),
          ),
          linksCard("What it drives", `The units that read it, by ${unit.are[1]}.`, unit.feeds, (link) =>
            pathName(net.layers[link[0]], link[2]),
          ),
          neighbours(unit.near),
          ATLAS.notes.notesCard(unitName(i, k)),
        ),
        by.length > 0 && h("p", {}, h("a", { href: to.hand(i, k) }, "Compute this unit by hand, number by number →")),
      ],
    };
  }

  function steps(before, after, what, text) {
    return h(
      "div",
      { class: "steps" },
      h("a", { href: before, rel: "prev", "aria-label": `Previous ${what}` }, h("kbd", {}, "←")),
      text && h("span", { class: "small soft" }, text),
      h("a", { href: after, rel: "next", "aria-label": `Next ${what}` }, h("kbd", {}, "→")),
    );
  }

  function sentence(unit) {
    const zeros = isMissing(unit.zeros) ? null : unit.zeros;
    if (zeros !== null && unit.high <= 0)
      return "Never above zero on these images: a dead unit, as far as they can tell.";
    const active =
      zeros === null
        ? ""
        : zeros < 0.01
          ? "Always on; "
          : zeros > 0.9
            ? `Silent in ${percent(zeros)} of all places; `
            : `Active in ${percent(1 - zeros)} of all places; `;
    const start = `${active}${active ? "highest" : "Highest"} ${number(unit.high)}.`;
    if (isMissing(unit.classes) || !unit.classes.length) return start;
    const [best, mean] = unit.classes[0];
    const more =
      !isMissing(unit.overall) && unit.overall > 0
        ? `, ${times(mean / unit.overall)} its average over the classes`
        : "";
    return `${start} Over whole images it responds most to ${classLabel(best)}${more}.`;
  }

  function where(layer) {
    const place = layer.shape.length > 1 ? `One of ${size(layer.shape.slice(1))} places` : "A dense unit";
    if (isMissing(layer.field)) return `${place}; what it sees is not known. ${layer.field?.missing ?? ""}`;
    const step = layer.shape.length > 1 ? `, a new field every ${size(layer.field.stride)} px` : "";
    return `${place}; sees ${size(layer.field.size)} px${step}.`;
  }

  function excites(unit, layer, { label, said }) {
    const { photos, images } = ATLAS.net;
    const best = `best of ${count(images, "image")}`;
    if (!unit.crops.length)
      return card(
        "What excites it most",
        h("p", { class: "soft" }, `Nothing: none of ${count(images, "image")} excites it.`),
      );
    if (!photos) {
      const rows = unit.crops.map(([n, value, place]) => [
        classLink(label[n] < 0 ? said[n] : label[n]),
        value,
        `${number(value)}${place ? ` at row ${place[0]}, column ${place[1]}` : ""} of image ${n}`,
      ]);
      return card(
        "What excites it most",
        h("p", { class: "soft small" }, `By class, ${best}; this atlas was made without their pixels.`),
        bars(rows),
      );
    }
    const all = unit.crops.every(([, , , box]) => isWhole(box));
    const unknown = isMissing(layer.field) && unit.crops.every(([, , , box]) => !box);
    const ring = all && !isMissing(layer.field) && unit.crops.some(([, , place]) => place);
    const text = unknown
      ? `The ${best}. What it sees of them is not known.`
      : all
        ? `The ${best}. Its field covers the whole input, so there is no smaller piece to show${ring ? "; the ring is the middle of what its strongest place sees" : ""}.`
        : `Above the piece that its strongest place can see, below where that lies in the photograph; ${best}.`;
    return card(
      all ? "The images that excite it most" : "What excites it most, in real photographs",
      h("p", { class: "soft small" }, text),
      h("div", { class: "examples" }, unit.crops.map(example(layer, { label, said }, all))),
    );
  }

  // One of the images that excite a unit most, and its rank. all: whether it sees the whole of each.
  function example(layer, { label, said }, all) {
    return ([n, value, place, box], at) => {
      const name = className(label[n]);
      const response = `response ${number(value)}`;
      const shown = all
        ? ringed(n, layer, place, `${at + 1}. ${name}, ${response}`)
        : [
            crop(n, box, `Piece of image ${n}, ${name}, ${response}`),
            boxed(
              n,
              box,
              `The whole image ${n}, ${isWhole(box) ? "all of it is seen" : `rows ${box[0]} to ${box[2]} and columns ${box[1]} to ${box[3]} marked`}`,
            ),
          ];
      return h(
        "figure",
        { class: "example" },
        shown,
        h(
          "figcaption",
          {},
          h("b", {}, number(value)),
          " ",
          h("a", { href: to.image(n) }, label[n] < 0 ? `image ${n}` : classLabel(label[n])),
          said[n] >= 0 && label[n] >= 0 && said[n] !== label[n] && `, taken for ${classLabel(said[n])}`,
        ),
      );
    };
  }

  function likes(i, k, unit) {
    const made = !isMissing(unit.picture);
    const share =
      unit.high > 0 && unit.picture > 0
        ? `, ${times(unit.picture / unit.high)} the highest of all images (${number(unit.high)})`
        : `; the highest of all images is ${number(unit.high)}`;
    const piece = isWhole(unit.crops[0]?.[3]) ? "photograph" : "piece of a photograph";
    const instead = ATLAS.net.photos && unit.crops.length ? `the ${piece} that excites it most. ` : "";
    const text = !made
      ? [h("b", {}, "Not an optimised picture"), `: ${instead}${unit.picture?.missing ?? ""}`]
      : unit.picture > 0 || isMissing(unit.zeros)
        ? [h("b", {}, number(unit.picture)), ` reached in this optimised picture${share}.`]
        : "The optimised picture does not reach it: it shows nothing.";
    return card(
      unit.kernel ? "What it looks for" : "What it would like to see",
      h(
        "div",
        { class: "pair" },
        unit.kernel &&
          h(
            "figure",
            {},
            fill(kernel(unit.kernel, `Kernel of unit ${unitName(i, k)}`), { class: "big coarse" }),
            h(
              "figcaption",
              { class: "small soft" },
              "Its kernel on the image. ",
              unit.kernel[1] === 3 ? "Grey is zero." : "Blue is below zero, orange above.",
            ),
          ),
        h(
          "figure",
          {},
          h("div", { class: "big" }, face(i, k, { eager: true })),
          h("figcaption", { class: "small soft" }, text),
        ),
      ),
    );
  }

  function often(unit, edges) {
    const zeros = isMissing(unit.zeros) ? "" : `${percent(unit.zeros, 1)} of all activations are exactly zero. `;
    const text = `${zeros}Mean ${number(unit.mean)}, standard deviation ${number(unit.sd)}, lowest ${number(unit.low)}, highest ${number(unit.high)}.`;
    return card(
      "How often, how strongly",
      isMissing(unit.hist) ? missing(unit.hist) : histogram(unit.hist, edges),
      h("p", { class: "small soft" }, text, !isMissing(unit.hist) && " Heights are on a logarithmic scale."),
    );
  }

  function responds(unit) {
    if (isMissing(unit.classes)) return card("Classes it responds to", missing(unit.classes));
    const overall = isMissing(unit.overall) ? null : unit.overall;
    const rows = unit.classes.map(([c, mean]) => [
      classLink(c),
      mean,
      `${number(mean)}${overall > 0 ? ` (${times(mean / overall)})` : ""}`,
    ]);
    return card(
      "Classes it responds to",
      h(
        "p",
        { class: "small soft" },
        `Mean over all places of the class’s images${overall === null ? "" : `; over all classes ${number(overall)}`}.`,
      ),
      rows.length ? bars(rows) : h("p", { class: "soft" }, "None."),
    );
  }

  function without(effect, classes) {
    const title = "What happens without it";
    if (isMissing(effect)) return card(title, missing(effect));
    const change = [h("b", {}, signed(effect.change)), ` on average`];
    if (effect.r != null) {
      return card(
        title,
        h(
          "p",
          {},
          h("span", { class: "tag" }, "estimated, not measured"),
          ` Set to zero everywhere, ${effect.of} would change by `,
          change,
          ".",
        ),
        h(
          "p",
          { class: "small soft" },
          `To first order, on ${count(effect.images, "image")}; in this layer such estimates agree with ${many(effect.checked)} measured units at r = ${effect.r.toFixed(2)}.`,
        ),
      );
    }
    const points = effect.after - effect.before;
    const kind = points < 0 ? "minus" : points > 0 ? "plus" : "soft";
    const accuracy =
      effect.before == null
        ? null
        : h(
            "p",
            {},
            "Set to zero everywhere, accuracy goes from ",
            h("b", {}, percent(effect.before, 1)),
            " to ",
            h("b", {}, percent(effect.after, 1)),
            h("span", { class: kind }, ` (${points === 0 ? "±0" : signed(points * 100, 2)} points)`),
            effect.flips == null
              ? "."
              : `; ${many(effect.flips)} of ${count(effect.images, "answer")} ${effect.flips === 1 ? "changes" : "change"}.`,
          );
    return card(
      title,
      accuracy ??
        h(
          "p",
          {},
          `Set to zero everywhere, ${effect.flips == null ? "" : `${many(effect.flips)} of ${count(effect.images, "answer")} change, and `}${effect.of} changes by `,
          change,
          ".",
        ),
      accuracy && h("p", {}, `${effect.of[0].toUpperCase()}${effect.of.slice(1)} changes by `, change, "."),
      effect.classes.length > 0 && [
        h("p", { class: "small soft" }, "The same on each class’s own images; the most hurt and the most helped."),
        bars(
          effect.classes.map(([c, value]) => [classLink(c), value, signed(value)]),
          { both: true },
        ),
      ],
      h(
        "p",
        { class: "small soft" },
        `Measured on ${count(effect.images, "image")}${effect.classes.length ? `, about ${Math.max(1, Math.round(effect.images / classes))} a class: single classes are rough` : ""}.`,
      ),
    );
  }

  function pathName(layer, p) {
    const path = layer?.paths[p];
    if (!path) return "";
    const isMain = layer.paths.slice(1, p + 1).every((each) => each.joined);
    return !path.weights && !path.joined ? "added as it is" : isMain ? "" : "shortcut";
  }

  function linksCard(title, text, found, nameOf) {
    if (isMissing(found)) return card(title, missing(found));
    const rows = found.map((link) => ({
      layer: link[0],
      unit: link[1],
      value: link[3],
      kernel: link[4],
      how: nameOf(link),
    }));
    return card(
      title,
      h("p", { class: "small soft" }, text),
      rows.length ? links(rows) : h("p", { class: "soft" }, "Nothing."),
    );
  }

  function neighbours(near) {
    const title = "Units that go along with it";
    if (isMissing(near)) return card(title, missing(near));
    const shown = near.filter(([, , r]) => r > 0);
    const chips = shown.map(([layer, unit, r]) =>
      h(
        "a",
        { class: "chip", href: to.unit(layer, unit) },
        face(layer, unit, { alt: "" }),
        h("span", {}, h("b", {}, r.toFixed(2))),
        h("span", { class: "unit" }, breakable(unitName(layer, unit))),
      ),
    );
    return card(
      title,
      h(
        "p",
        { class: "small soft" },
        `Correlation of means over ${count(ATLAS.net.images, "image")}, in the whole network.`,
      ),
      shown.length ? h("div", { class: "chips" }, chips) : h("p", { class: "soft" }, "None."),
    );
  }

  ATLAS.pages.unit = unitPage;
  ATLAS.unit = { answers, steps, example };
}
