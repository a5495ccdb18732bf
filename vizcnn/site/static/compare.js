"use strict";
// Another network that has looked at the same images: beside this one on the page of a unit, and what changed.
{
  const { h, card, isMissing, missing } = ATLAS.elements;
  const { number, percent, many, count, signed } = ATLAS.words;
  const { int32, float32 } = ATLAS.decode;
  const { to, outputs, className, classLabel, unitName, isWhole } = ATLAS.places;
  const { image, photo, bestCrop, face } = ATLAS.pictures;
  const { bars, classLink, facts } = ATLAS.charts;

  const MOST = 60; // units that the page of what changed shows
  const SHOWN = 6; // crops of each network
  const CLASSES = 5;
  const FEW = 0.5; // of the units: where fewer are most like that of their own number, the page warns

  const amount = (change) => (change > 0 && change < 1e-3 ? "<0.001" : number(change, 2));

  const isCompared = (i) => ATLAS.net.compare?.layers.includes(i) ?? false;

  const byLayer = ATLAS.memo(
    (changes) =>
      new Map(
        changes.layers.map(([i, found, pictured]) => [
          i,
          isMissing(found)
            ? { missing: found.missing, pictured }
            : { change: float32(found.change), nearest: int32(found.nearest), like: float32(found.like), pictured },
        ]),
      ),
  );

  // How the units of a layer differ: {change, nearest, like, pictured}, or {missing, pictured}; null where they are not
  // compared.
  const ofLayer = async (i) => (isCompared(i) ? byLayer(await ATLAS.load("changes")).get(i) : null);

  // Why a layer is not compared; null where it is, or nothing is.
  async function whyNot(i) {
    if (!ATLAS.net.compare || ATLAS.net.compare.same || isCompared(i)) return null;
    const left = (await ATLAS.load("changes")).left.find(([name]) => name === ATLAS.net.layers[i].name);
    return left ? { missing: `${left[1][0].toUpperCase()}${left[1].slice(1)}.` } : null;
  }

  // What stands for a unit of the other network: its optimised picture, else its best crop.
  function otherFace(i, k, pictured, alt) {
    if (ATLAS.places.hasBit(pictured, k)) return image(`unit/other-${i}-${k}.webp`, alt);
    return bestCrop(`Q${i}`, k, alt);
  }

  // ----------------------------------------------------------------------------------------------- the page of a unit

  async function section(i, k, unit, answers) {
    const { net } = ATLAS;
    const why = await whyNot(i);
    if (why) return card(`In ${net.compare.other}`, missing(why, "Not compared."));
    if (!isCompared(i)) return null;
    const [changes, chunk] = await Promise.all([
      ATLAS.load("changes"),
      ATLAS.load(`B${i}-${Math.floor(k / net.chunk)}`),
    ]);
    const found = byLayer(changes).get(i);
    const other = chunk[k % net.chunk];
    const layer = net.layers[i];
    const row = (title, one, two) =>
      h(
        "tbody",
        {},
        h("tr", {}, h("th", { scope: "rowgroup", colspan: 2 }, title)),
        h("tr", {}, h("td", {}, two), h("td", {}, one)),
      );
    const both = !isMissing(unit.picture) && !isMissing(other.picture);
    const crops = unit.crops.length > 0 || other.crops.length > 0;
    return card(
      `The same unit in ${net.compare.other}`,
      isMissing(found)
        ? missing(found, "How much it changed is not known.")
        : h("p", {}, sentence(found, k, changes.images)),
      h(
        "table",
        { class: "versus" },
        h(
          "thead",
          {},
          h("tr", {}, h("th", { scope: "col" }, net.compare.other), h("th", { scope: "col" }, net.compare.own)),
        ),
        both &&
          row(
            "Optimised for it",
            picture(face(i, k, { alt: `Optimised for it in ${net.compare.own}` }), unit),
            picture(otherFace(i, k, true, `Optimised for it in ${net.compare.other}`), other),
          ),
        crops && row("What excites it most", examples(unit, layer, answers), examples(other, layer, answers)),
        row("How strongly", strength(unit), strength(other)),
        row("Classes it responds to", classes(unit), classes(other)),
        row("What happens without it", without(unit.effect), without(other.effect)),
      ),
      h("p", { class: "small soft" }, h("a", { href: "#/changes" }, "All that changed, most first →")),
    );
  }

  function sentence({ change, nearest, like }, k, images) {
    const { other } = ATLAS.net.compare;
    const start = [h("b", {}, `Change ${amount(change[k])}`), `: over ${count(images, "image")} `];
    if (change[k] === 0 && Number.isNaN(like[k]))
      return [...start, "it gives the same for all in both networks, and tells none apart."];
    if (change[k] === 0) return [...start, "it tells the images apart as it does there."];
    if (Number.isNaN(like[k]))
      return [...start, "one of the two gives the same for all, so they have nothing in common."];
    const own = `its means correlate with those in ${other} at r = ${number(1 - change[k])}. `;
    const near =
      nearest[k] === k
        ? "It is most like the unit of its own number there."
        : `It is more like unit ${nearest[k]} there, at r = ${number(like[k])}: the number may mean another unit.`;
    return [...start, own, near];
  }

  const picture = (shown, unit) => [
    h("div", { class: "big" }, shown),
    h(
      "p",
      { class: "small soft" },
      unit.picture > 0 || isMissing(unit.zeros)
        ? `reaches ${number(unit.picture)}`
        : "does not reach it: it shows nothing",
    ),
  ];

  function examples(unit, layer, answers) {
    if (!unit.crops.length) return h("p", { class: "soft small" }, "Nothing excites it.");
    if (!ATLAS.net.photos) {
      const rows = unit.crops.slice(0, SHOWN).map(([n, value]) => [`image ${n}`, value]);
      return bars(rows);
    }
    const all = unit.crops.every(([, , , box]) => isWhole(box));
    return h("div", { class: "examples few" }, unit.crops.slice(0, SHOWN).map(ATLAS.unit.example(layer, answers, all)));
  }

  function strength(unit) {
    return facts([
      ["highest", number(unit.high)],
      ["mean", number(unit.mean)],
      isMissing(unit.zeros) ? null : ["zeros", percent(unit.zeros)],
    ]);
  }

  function classes(unit) {
    if (isMissing(unit.classes)) return missing(unit.classes, "");
    const rows = unit.classes.slice(0, CLASSES).map(([c, mean]) => [classLink(c), mean]);
    return rows.length ? bars(rows) : h("p", { class: "soft small" }, "None.");
  }

  function without(effect) {
    if (isMissing(effect)) return missing(effect);
    const how = effect.r == null ? "measured" : "estimated, not measured,";
    const accuracy =
      effect.before != null &&
      h("p", {}, "Accuracy ", h("b", {}, percent(effect.before, 1)), " → ", h("b", {}, percent(effect.after, 1)), ".");
    const what = `${effect.of[0].toUpperCase()}${effect.of.slice(1)}`;
    return [
      accuracy,
      h(
        "p",
        { class: "small" },
        `${what} `,
        h("b", {}, signed(effect.change)),
        ` on average, ${how} on ${count(effect.images, "image")}.`,
      ),
    ];
  }

  // --------------------------------------------------------------------------------------------------- what changed

  async function changesPage() {
    const { net } = ATLAS;
    if (!net.compare) throw new Error("This atlas compares its network with no other.");
    const [changes, images] = await Promise.all([ATLAS.load("changes"), ATLAS.load("images")]);
    const { own, other, same } = net.compare;
    const title = "What changed";
    const page = (...body) => ({ crumbs: [["what changed"]], body: [h("h1", {}, title), ...body] });
    if (same)
      return page(
        h("p", { class: "lead" }, `Nothing: ${other} is the same network with the same weights.`),
        h("p", { class: "soft small" }, "Weights ", h("code", {}, changes.weights.slice(0, 16)), "."),
      );
    const layers = [...byLayer(changes)].filter(([i]) => i !== outputs());
    const known = layers.filter(([, found]) => !isMissing(found));
    const units = known.flatMap(([i, found]) => [...found.change].map((change, k) => ({ i, k, change, found })));
    const alive = units.filter(({ k, found }) => found.nearest[k] >= 0); // the others are like none
    const numbered = alive.filter(({ k, found }) => found.nearest[k] === k).length;
    units.sort((a, b) => b.change - a.change || a.i - b.i || a.k - b.k);
    const { answers } = changes;
    return page(
      h("p", { class: "lead" }, `From ${other} to ${own}, over the same ${count(net.images, "image")}.`),
      facts([
        [`accuracy of ${other}`, isMissing(changes.accuracy) ? changes.accuracy : percent(changes.accuracy, 1)],
        [`accuracy of ${own}`, isMissing(net.accuracy) ? net.accuracy : percent(net.accuracy, 1)],
        ["same answer", isMissing(answers) ? answers : percent(answers.agree, 1)],
        units.length > 0 && ["units compared", many(units.length)],
      ]),
      isMissing(answers) && missing(answers, "Answers are not compared."),
      changes.left.length > 0 && leftOut(changes.left),
      units.length > 0 &&
        numbered < alive.length * FEW &&
        h(
          "p",
          { class: "why" },
          `Only ${many(numbered)} of ${count(alive.length, "unit")} are most like the unit of their own number. Either they changed that much, or the two networks were trained apart: then equal numbers mean nothing, and neither does a change.`,
        ),
      !isMissing(answers) && h("div", { class: "columns" }, classesCard(answers.classes), imagesCard(answers, images)),
      known.length > 0 && layersCard(known),
      layers
        .filter(([, found]) => isMissing(found))
        .slice(0, 1)
        .map(([, found]) => missing(found, "How much units changed is not known.")),
      units.length > 0 && [
        h("h2", {}, units.length > MOST ? `The ${MOST} units that changed most` : "Units, most changed first"),
        h("p", { class: "soft small" }, `At the left in ${other}, at the right in ${own}. ${meaning(changes.images)}`),
        h("div", { class: "wall twos" }, ATLAS.wall.shelve(units.slice(0, MOST).map(tile))),
      ],
    );
  }

  const meaning = (images) =>
    `The change of a unit is 1 − r, with r the correlation (Pearson’s) of its mean responses to ${count(images, "image")} in the two networks: 0 where it tells them apart as before, 1 where the one says nothing of the other, 2 where it does the opposite. How strongly it responds does not count.`;

  function leftOut(left) {
    return h(
      "details",
      { class: "small" },
      h("summary", {}, `${count(left.length, "layer")} not compared`),
      h(
        "ul",
        {},
        left.map(([name, reason]) => h("li", {}, h("span", { class: "name" }, name), `: ${reason}`)),
      ),
    );
  }

  function classesCard(found) {
    const title = "Classes, most changed first";
    if (isMissing(found)) return card(title, missing(found));
    const rows = found
      .map(([c, n, before, now]) => ({ c, n, before, now, points: ((now - before) / n) * 100 }))
      .sort((a, b) => Math.abs(b.points) - Math.abs(a.points) || a.c - b.c)
      .slice(0, 12);
    const least = Math.min(...rows.map(({ n }) => n));
    return card(
      title,
      h("p", { class: "small soft" }, "Points of accuracy that each class has gained or lost."),
      bars(
        rows.map(({ c, n, before, now, points }) => [
          classLink(c),
          points,
          `${percent(before / n)} → ${percent(now / n)}`,
        ]),
        { both: true },
      ),
      least < 30 && h("p", { class: "small soft" }, `With ${count(least, "image")} of a class, its accuracy is rough.`),
    );
  }

  function imagesCard({ gained, lost, classes: known }, images) {
    if (isMissing(known)) return null;
    const { label } = ATLAS.unit.answers(images);
    const { own, other } = ATLAS.net.compare;
    const chips = ([total, shown], who) => [
      h("h3", {}, `Named rightly by ${who} alone: ${many(total)}`),
      ATLAS.net.photos &&
        h(
          "div",
          { class: "chips" },
          shown.map(([n, wrong]) =>
            h(
              "a",
              { class: "chip", href: to.image(n) },
              photo(n, className(label[n])),
              h("span", {}, h("b", {}, classLabel(label[n])), `, not ${classLabel(wrong)}`),
            ),
          ),
        ),
    ];
    return card(
      "Images whose answer changed",
      ATLAS.net.photos &&
        h("p", { class: "small soft" }, "Below each its class, and what the network says that is wrong; surest first."),
      chips(gained, own),
      chips(lost, other),
    );
  }

  function layersCard(known) {
    const rows = known.map(([i, { change, nearest }]) => {
      const order = [...change].sort((a, b) => a - b);
      return {
        i,
        units: nearest.filter((near) => near >= 0).length,
        middle: (order[(order.length - 1) >> 1] + order[order.length >> 1]) / 2,
        most: order[order.length - 1],
        same: [...nearest].filter((near, k) => near === k).length,
      };
    });
    const end = Math.max(...rows.map(({ middle }) => middle), 1e-12);
    const click = (i) => () => ATLAS.wall.sort(i, "change");
    return card(
      "Layers, in the order they run",
      h("p", { class: "small soft" }, "A link leads to all units of a layer, most changed first."),
      h(
        "table",
        { class: "of-layers" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["layer", "median change", "most", "most like their own number"].map((text, column) =>
              h("th", { scope: "col", colspan: column === 1 ? 2 : null }, text),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map(({ i, units, middle, most, same }) =>
            h(
              "tr",
              {},
              h(
                "th",
                { scope: "row" },
                h("a", { class: "name", href: to.layer(i), click: click(i) }, ATLAS.net.layers[i].name),
              ),
              h(
                "td",
                { class: "bar-of-layer" },
                h("span", { class: "track" }, h("i", { style: { width: `${(middle / end) * 100}%` } })),
              ),
              h("td", {}, amount(middle)),
              h("td", {}, amount(most)),
              h("td", {}, `${many(same)} of ${many(units)}`),
            ),
          ),
        ),
      ),
    );
  }

  function tile({ i, k, change, found }) {
    const { own, other } = ATLAS.net.compare;
    return h(
      "a",
      {
        class: "tile",
        href: to.unit(i, k),
        "aria-label": `Unit ${unitName(i, k)}, change ${amount(change)}`,
      },
      h("span", { class: "picture" }, otherFace(i, k, found.pictured, ""), face(i, k, { alt: "" })),
      h("span", { class: "line" }, h("b", { title: `${other} and ${own}` }, unitName(i, k)), amount(change)),
    );
  }

  ATLAS.pages.changes = changesPage;
  ATLAS.compare = { amount, ofLayer, whyNot, section, face: otherFace };
}
