"use strict";
// The wall of a layer: all of its units, in an order of one's choice, or those that speak for a class.
{
  const { h, replace, choice, isMissing, missing } = ATLAS.elements;
  const { number, percent, many, count, signed, times, size } = ATLAS.words;
  const { uint16, int32, float32, bytes } = ATLAS.decode;
  const { to, className, classLabel, unitName, activationName, arePictured } = ATLAS.places;
  const { face, crop, kernel, blank } = ATLAS.pictures;
  const { facts } = ATLAS.charts;

  const SHELF = 120; // tiles of a shelf: a multiple of each number of columns that the stylesheet knows
  const MOST = 60; // units that are said to speak for a class
  const LEAST = 40 / 255; // of a unit's highest class mean, for it to speak for a class

  // How each wall was left: order, what was asked, and the list of units that a unit's page walks along.
  const states = new Map();
  const stateOf = (i) =>
    states.get(i) ?? states.set(i, { order: "number", asked: "", onlyDead: false, view: null, list: null }).get(i);
  const listOf = (i) => stateOf(i).list ?? [...Array(ATLAS.net.layers[i].shape[0]).keys()];

  const decoded = ATLAS.memo((wall) => ({
    high: float32(wall.high),
    mean: float32(wall.mean),
    zeros: float32(wall.zeros),
    select: float32(wall.select),
    effect: float32(wall.effect),
    best: int32(wall.best),
    dead: new Set(wall.dead),
    estimated: new Set(wall.estimated),
  }));

  // Orders: name, key by which they rise, and what a tile then says. Units of which it is not known come last.
  const known = (x) => (Number.isNaN(x) ? Infinity : x);
  const ORDERS = {
    number: { name: "number", key: () => () => 0, say: (d) => (k) => number(d.high[k]) },
    strength: { name: "strongest response", key: (d) => (k) => -d.high[k], say: (d) => (k) => number(d.high[k]) },
    mean: { name: "mean response", key: (d) => (k) => -d.mean[k], say: (d) => (k) => number(d.mean[k]) },
    select: {
      name: "class selectivity",
      key: (d) => (k) => known(-d.select[k]),
      say: (d) => (k) => number(d.select[k], 2),
    },
    zeros: { name: "share of zeros", key: (d) => (k) => known(-d.zeros[k]), say: (d) => (k) => percent(d.zeros[k]) },
    effect: {
      name: "what its removal costs",
      key: (d) => (k) => known(d.effect[k]),
      say: (d) => (k) => (d.estimated.has(k) ? "≈ " : "") + (Number.isNaN(d.effect[k]) ? "–" : signed(d.effect[k], 2)),
    },
    change: {
      name: "what changed most",
      key: (d) => (k) => known(-d.change[k]),
      say: (d) => (k) => ATLAS.compare.amount(d.change[k]),
    },
  };

  // Tiles on shelves of whole rows, which the browser skips as one while they are far away: a browser that looks at two
  // thousand tiles one by one, for each frame of scrolling, misses every other frame.
  function shelve(tiles) {
    const starts = [...Array(Math.ceil(tiles.length / SHELF)).keys()].map((n) => n * SHELF);
    return starts.map((from) => {
      const own = tiles.slice(from, from + SHELF);
      return h("div", { class: "shelf", style: { "--tiles": own.length } }, own);
    });
  }

  // A bar below a tile, full to a share from 0 to 1: one element without a clip, since there are thousands.
  const meter = (share) => setMeter(h("span", { class: "meter" }), share);
  function setMeter(bar, share) {
    const full = `${Math.round(Math.max(0, Math.min(1, share || 0)) * 1000) / 10}%`;
    if (bar.style.getPropertyValue("--full") !== full) bar.style.setProperty("--full", full);
    return bar;
  }

  async function wallPage(i) {
    const layer = ATLAS.net.layers[i];
    const wall = await ATLAS.load(`L${i}`);
    const faces = ATLAS.net.photos ? await ATLAS.load(`P${i}`) : null;
    const [beside, left] = await Promise.all([ATLAS.compare.ofLayer(i), ATLAS.compare.whyNot(i)]);
    const data = { ...decoded(wall), change: beside?.change ?? [NaN] };
    const state = stateOf(i);
    const views = [
      arePictured(i) && ["optimised", "optimised"],
      faces && ["photographs", "photographs"],
      wall.kernels && ["kernels", "kernels"],
      beside && (faces || beside.pictured) && ["other", `in ${ATLAS.net.compare.other}`],
    ].filter(Boolean);
    state.view ??= views[0]?.[0] ?? "numbers";

    const grid = h("div", { class: "wall" });
    const said = h("p", { class: "found small soft", role: "status" });
    const made = new Map(); // tiles by unit: what is sorted is moved, and its picture is not read again
    let turn = 0;

    function tile(k, share) {
      const own = made.get(k) ?? makeTile(k);
      const text = data.dead.has(k) ? "dead" : ORDERS[state.order].say(data)(k);
      if (own.value.textContent !== text) own.value.textContent = text;
      setMeter(own.bar, share ?? data.select[k]);
      if (own.view !== state.view) {
        own.view = state.view;
        replace(own.picture, tilePicture(k));
      }
      return own.link;
    }

    function makeTile(k) {
      const best = data.best[k];
      const responds = best >= 0 ? `most for ${className(best)}, ` : "";
      const label = `Unit ${k}, ${data.dead.has(k) ? "dead" : `${responds}highest ${number(data.high[k])}`}`;
      const [picture, value, bar] = [h("span", { class: "picture" }), h("span"), meter(0)];
      const link = h(
        "a",
        { class: data.dead.has(k) ? "tile dead" : "tile", href: to.unit(i, k), "data-unit": k, "aria-label": label },
        picture,
        h("span", { class: "line" }, h("b", {}, k), value),
        best >= 0 && h("span", { class: "class" }, classLabel(best)),
        bar,
      );
      made.set(k, { link, picture, value, bar, view: null });
      return made.get(k);
    }

    function tilePicture(k) {
      if (state.view === "kernels" && wall.kernels[k]) return kernel(wall.kernels[k], "");
      if (state.view === "other") return ATLAS.compare.face(i, k, beside.pictured, "");
      if (state.view === "photographs") return faces[k] ? crop(faces[k][0], faces[k][3], "") : blank("–", "");
      return face(i, k, { alt: "" });
    }

    // Over the optimised picture that is pointed at, the piece of a photograph that excites the unit most.
    function peek(event) {
      const k = Number(event.target.closest(".tile")?.dataset.unit ?? NaN);
      const own = made.get(k);
      if (!own || !faces?.[k] || state.view !== "optimised" || own.picture.childElementCount > 1) return;
      own.picture.append(crop(faces[k][0], faces[k][3], ""));
    }
    grid.addEventListener("pointerover", peek);
    grid.addEventListener("focusin", peek);

    // Draw the list again. Tiles that are made are there when this returns, the first shelf, and all up to the unit that
    // is to be seen; others follow, a shelf a frame, so that the page answers.
    function draw(until = null) {
      const own = ++turn;
      const { list, share, note } = choose(i, wall, data, state);
      const place = (from, end) => shelve(list.slice(from, end).map((k) => tile(k, share?.(k))));
      state.list = list;
      said.textContent = note;
      const unmade = list.findIndex((k) => !made.has(k));
      const least = unmade < 0 ? list.length : Math.max(unmade, until == null ? 0 : list.indexOf(until)) + 1;
      let done = Math.ceil(least / SHELF) * SHELF;
      grid.replaceChildren(...place(0, done));
      const more = () => {
        if (own !== turn || done >= list.length) return;
        grid.append(...place(done, done + SHELF));
        done += SHELF;
        requestAnimationFrame(more);
      };
      requestAnimationFrame(more);
    }

    draw();
    return {
      crumbs: [[layer.name]],
      body: [
        h("h1", {}, layer.name),
        h("p", { class: "lead" }, wayIn(layer)),
        facts([
          ["units", many(layer.shape[0])],
          layer.shape.length > 1 && ["places", size(layer.shape.slice(1))],
          ["receptive field", isMissing(layer.field) ? layer.field : `${size(layer.field.size)} px`],
          ["stride", isMissing(layer.field) || layer.shape.length < 2 ? null : `${size(layer.field.stride)} px`],
          ["parameters", layer.parameters ? many(layer.parameters) : null],
          ["zeros", isMissing(layer.zeros) ? layer.zeros : percent(layer.zeros)],
          ["dead", isMissing(layer.dead) ? layer.dead : layer.dead ? many(layer.dead) : "none"],
          ["always on", isMissing(layer.always) ? layer.always : layer.always ? many(layer.always) : "none"],
          ["removed", removed(data)],
        ]),
        layer.field?.missing && missing(layer.field, "What its units see is not measured."),
        layer.zeros?.missing && missing(layer.zeros, "Zeros and dead units are not counted."),
        left && missing(left, `Not compared with ${ATLAS.net.compare.other}.`),
        tools(layer, data, wall, state, views, draw, said),
        grid,
        h("p", { class: "soft small below" }, explain(wall, faces, state)),
        beside?.change &&
          h(
            "p",
            { class: "soft small" },
            "What changed most is explained on the page of ",
            h("a", { href: "#/changes" }, "what changed"),
            ".",
          ),
      ],
      shown: (from) => from?.layer === i && reveal(grid, draw, from.unit),
    };
  }

  // Which units are shown, in which order; share: of the bar below a tile; note: what was found, in words.
  function choose(i, wall, data, state) {
    const asked = state.asked.trim().toLowerCase();
    const all = [...data.high.keys()].filter((k) => !state.onlyDead || data.dead.has(k));
    const inOrder = (list) => {
      const key = ORDERS[state.order].key(data);
      const keys = new Map(list.map((k) => [k, key(k)]));
      return list.sort((a, b) => (keys.get(a) === keys.get(b) ? a - b : keys.get(a) - keys.get(b)));
    };
    if (!asked)
      return { list: inOrder(all), note: state.onlyDead ? count(all.length, "dead unit") : count(all.length, "unit") };
    const c = findClass(asked);
    if (c >= 0 && !isMissing(wall.means)) return speakFor(c, all, wall.means);
    if (c >= 0 && isMissing(wall.means))
      return { list: inOrder(all), note: `What units say about classes was not measured. ${wall.means.missing}` };
    if (/^\d+$/.test(asked)) {
      const list = inOrder(all.filter((k) => String(k).startsWith(asked)));
      return { list, note: `${count(list.length, "unit")} whose number begins with ${asked}` };
    }
    const list = inOrder(all.filter((k) => ATLAS.notes.get(unitName(i, k)).toLowerCase().includes(asked)));
    return {
      list,
      note: list.length
        ? `${count(list.length, "unit")} with “${state.asked}” in the note`
        : `No class and no note contains “${state.asked}”.`,
    };
  }

  function findClass(asked) {
    const names = ATLAS.net.classes;
    const exact = names.findIndex((name) => name.toLowerCase() === asked);
    if (exact >= 0 || /^\d+$/.test(asked) || asked.length < 2) return exact;
    return names.findIndex((name) => name.toLowerCase().includes(asked));
  }

  const decodedMeans = ATLAS.memo((means) => ({
    average: float32(means.average),
    share: bytes(means.all ?? means.share),
    classes: means.class ? uint16(means.class) : null,
  }));

  // A unit's mean on the class's images as a share of its highest class mean, from 0 to 1.
  function shareOf(means, k, c) {
    const { share, classes } = decodedMeans(means);
    if (!classes) return share[k * ATLAS.net.classes.length + c] / 255;
    const at = classes.subarray(k * means.best, (k + 1) * means.best).indexOf(c);
    return at < 0 ? 0 : share[k * means.best + at] / 255;
  }

  function speakFor(c, all, means) {
    if (means.without.includes(c))
      return { list: [], note: `No image of ${classLabel(c)} was scanned.`, share: () => 0 };
    const { average } = decodedMeans(means);
    const scores = new Map();
    for (const k of all)
      if (shareOf(means, k, c) > LEAST && average[k] > 0) scores.set(k, shareOf(means, k, c) / average[k]);
    const list = [...scores.keys()].sort((a, b) => scores.get(b) - scores.get(a)).slice(0, MOST);
    const few = means.best ? `, of those that have it among their ${means.best} strongest classes` : "";
    const note = list.length
      ? `${count(list.length, "unit")} by how much more they respond to ${classLabel(c)} than on average: ${times(scores.get(list[0]))} for unit ${list[0]}${few}`
      : `No unit here responds to ${classLabel(c)}${few}.`;
    return { list, note, share: (k) => scores.get(k) / scores.get(list[0]) };
  }

  function removed(data) {
    const tried = data.effect.filter((x) => !Number.isNaN(x)).length - data.estimated.size;
    return tried ? (tried === data.effect.length ? "each" : `${many(tried)} of ${many(data.effect.length)}`) : null;
  }

  function tools(layer, data, wall, state, views, draw, said) {
    const orders = Object.keys(ORDERS).filter(
      (name) => name === "number" || [...(data[name] ?? data.high)].some((x) => !Number.isNaN(x)),
    );
    const pick = h(
      "select",
      {
        change: (event) => {
          state.order = event.target.value;
          draw();
        },
      },
      orders.map((name) => h("option", { value: name, selected: state.order === name }, ORDERS[name].name)),
    );
    const ask = h("input", {
      type: "search",
      list: "class-names",
      placeholder: ATLAS.net.classes.length ? "a class, a note, a number" : "a note, a number",
      value: state.asked,
      input: (event) => {
        state.asked = event.target.value;
        draw();
      },
    });
    return h(
      "div",
      { class: "tools" },
      h("label", {}, "Sort by", pick),
      h("label", {}, "Speaks for", ask),
      h(
        "datalist",
        { id: "class-names" },
        ATLAS.net.classes.map((name) => h("option", { value: name })),
      ),
      views.length > 1 &&
        choice("Show", views, state.view, (view) => {
          state.view = view;
          draw();
        }),
      data.dead.size > 0 &&
        h(
          "label",
          {},
          h("input", {
            type: "checkbox",
            checked: state.onlyDead,
            change: (event) => {
              state.onlyDead = event.target.checked;
              draw();
            },
          }),
          "dead only",
        ),
      said,
    );
  }

  function explain(wall, faces, state) {
    return [
      "Below each picture: the unit’s number and its highest response, or what the units are sorted by",
      decoded(wall).best.some((c) => c >= 0)
        ? "; the class whose images it responds to most on average; and a bar, how selective it is for that class (Morcos et al. 2018: the best class against the mean of the others)."
        : ".",
      [...decoded(wall).effect].some((x) => !Number.isNaN(x))
        ? ` What its removal costs is the mean change of ${wall.of}; ≈ marks what was estimated and not measured.`
        : "",
      faces && state.view === "optimised"
        ? " Pointing at a picture shows the piece of a real photograph that excites the unit most."
        : "",
    ];
  }

  // What leads into a layer, in a sentence.
  function wayIn(layer) {
    const say = (path) => {
      const from = path.source == null ? "the image" : ATLAS.net.layers[path.source].name;
      const through = path.via.length ? ` through ${path.via.join(", ")}` : "";
      const weights = path.norm ? `${path.weights} and ${path.norm}` : path.weights;
      return path.weights ? `${weights} of ${from}${through}` : `${from}${through}${path.joined ? "" : ", added as it is"}`;
    };
    const before = (path, p) => (p === 0 ? "" : path.joined ? ", joined with " : "; plus ");
    const paths = layer.paths.map((path, p) => before(path, p) + say(path)).join("");
    return `Read at ${layer.read}${paths ? `: ${paths}` : ""}${layer.activation ? `; then ${activationName(layer)}` : ""}.`;
  }

  // Back from a unit's page: its tile has the focus again, in the middle of the window.
  function reveal(grid, draw, unit) {
    const find = () => grid.querySelector(`[data-unit="${Number(unit)}"]`);
    if (!find()) draw(unit);
    const tile = find();
    if (!tile) return false;
    tile.focus({ preventScroll: true });
    tile.scrollIntoView({ block: "center" });
    return true;
  }

  ATLAS.pages.wall = wallPage;
  // From another page: the wall of a layer will be in this order.
  function sort(i, order) {
    Object.assign(stateOf(i), { order, asked: "" });
  }

  ATLAS.wall = { listOf, sort, shelve, meter };
}
