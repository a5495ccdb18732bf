"use strict";
// One number of a unit's map, computed from numbers that one can see: patch × kernel, summed over channels and paths.
{
  const { h, replace, card } = ATLAS.elements;
  const { number, many, count, signed } = ATLAS.words;
  const { float32, floats } = ATLAS.decode;
  const { to, className, unitName, channelName, activationName, handImages, seenFrom } = ATLAS.places;
  const { photo, boxed, diverging, mix } = ATLAS.pictures;

  const LISTED = 10; // channels of which the sum is spelled out

  const biases = ATLAS.memo((term) => float32(term.bias));

  // Abramowitz and Stegun 7.1.26; good to 1.5e-7.
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return Math.sign(x) * (1 - poly * Math.exp(-x * x));
  }
  const clip = (x, end) => Math.min(end, Math.max(0, x));
  const ACTIVATE = {
    "": (x) => x,
    relu: (x) => Math.max(0, x),
    relu6: (x) => clip(x, 6),
    "leaky relu": (x, slope) => (x < 0 ? slope * x : x),
    silu: (x) => x / (1 + Math.exp(-x)),
    gelu: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)),
    hardswish: (x) => (x * clip(x + 3, 6)) / 6,
    sigmoid: (x) => 1 / (1 + Math.exp(-x)),
    tanh: Math.tanh,
  };

  // One path's part of unit k at a row and column: a sum for each channel that it reads.
  function followPath(term, read, k, y, x) {
    const values = floats(read);
    const [channels, rows = 1, columns = 1] = read.shape;
    if (!term) {
      const total = values[(k * rows + y) * columns + x];
      return { same: true, total, size: Math.abs(total) };
    }
    const weight = floats(term.weight);
    const isConv = term.weight.shape.length === 4;
    const [, inside, high, wide] = isConv ? term.weight.shape : [0, channels, rows, columns];
    const from = isConv ? Math.floor(k / (term.weight.shape[0] / term.groups)) * inside : 0;
    const top = isConv ? y * term.stride[0] - term.padding[0] : 0;
    const left = isConv ? x * term.stride[1] - term.padding[1] : 0;
    const [down, across] = isConv ? term.dilation : [1, 1];
    const given = (c, a, b) => {
      const [row, column] = [top + a * down, left + b * across];
      if (row < 0 || column < 0 || row >= rows || column >= columns) return null; // padding
      return values[((from + c) * rows + row) * columns + column];
    };
    const kernel = (c, a, b) => weight[((k * inside + c) * high + a) * wide + b];
    const sums = new Float64Array(inside);
    let size = Math.abs(biases(term)[k]);
    for (let c = 0; c < inside; c++) {
      for (let a = 0; a < high; a++) {
        for (let b = 0; b < wide; b++) {
          const product = (given(c, a, b) ?? 0) * kernel(c, a, b);
          sums[c] += product;
          size += Math.abs(product);
        }
      }
    }
    const bias = biases(term)[k];
    const products = sums.reduce((sum, one) => sum + one, 0);
    return {
      term,
      values,
      rows,
      columns,
      inside,
      from,
      high,
      wide,
      top,
      left,
      down,
      across,
      isConv,
      given,
      kernel,
      sums,
      bias,
      products,
      total: products + bias,
      size,
    };
  }

  // Everything about one number: its paths, their sum, what follows, and what the network says.
  function compute(layer, terms, reading, k, y, x) {
    const [, height = 1, width = 1] = layer.shape;
    const said = floats(reading.says);
    const paths = terms.map((term, p) => followPath(term, reading.reads[p], k, y, x));
    const sum = paths.reduce((all, path) => all + path.total, 0);
    const activate = ACTIVATE[layer.activation];
    const result = activate ? activate(sum, layer.slope) : null;
    const given = said[(k * height + y) * width + x];
    // Half precision keeps eleven bits: of each weight, of each input, and of the result.
    const allowed = paths.reduce((all, path) => all + path.size, 0) * 2 ** -10 + Math.abs(given) * 2 ** -10 + 1e-4;
    return { paths, sum, result, given, agrees: result !== null && Math.abs(result - given) <= allowed };
  }

  function strongestPlace(says, k, height, width) {
    const map = floats(says).subarray(k * height * width, (k + 1) * height * width);
    const at = map.reduce((best, value, p) => (value > map[best] ? p : best), 0);
    return [Math.floor(at / width), at % width];
  }

  async function handPage(i, k, image, place) {
    const { net } = ATLAS;
    const layer = net.layers[i];
    const chosen = handImages(i);
    if (!chosen.length)
      throw new Error(
        net.photos
          ? `The numbers of ${layer.name} are not in this atlas.`
          : "This atlas was made without images of the data set, so that there is no activation to compute.",
      );
    if (!(Number.isInteger(k) && k >= 0 && k < layer.shape[0]))
      throw new Error(`${layer.name} has the units 0 to ${layer.shape[0] - 1}.`);
    const n = chosen.includes(image) ? image : chosen[0];
    const [terms, reading, images, wall] = await Promise.all([
      ATLAS.load(`W${i}`),
      ATLAS.load(`A${i}-${n}`),
      ATLAS.load("images"),
      layer.output ? null : ATLAS.load(`L${i}`),
    ]);
    const { label } = ATLAS.unit.answers(images);
    const [, height = 1, width = 1] = layer.shape;
    const isMap = layer.shape.length > 1;
    const inside = place && place[0] >= 0 && place[0] < height && place[1] >= 0 && place[1] < width;
    const [y, x] = inside ? place : strongestPlace(reading.says, k, height, width);
    const go = (row, column) =>
      location.replace(
        to.hand(i, k, n, [Math.min(height - 1, Math.max(0, row)), Math.min(width - 1, Math.max(0, column))]),
      );
    const found = compute(layer, terms, reading, k, y, x);
    const main = found.paths[0];
    return {
      crumbs: [[layer.name, to.layer(i)], [String(k), to.unit(i, k)], ["by hand"]],
      keys: {
        up: to.unit(i, k),
        arrows: isMap && {
          ArrowLeft: () => go(y, x - 1),
          ArrowRight: () => go(y, x + 1),
          ArrowUp: () => go(y - 1, x),
          ArrowDown: () => go(y + 1, x),
        },
      },
      body: [
        h("h1", {}, "By hand: ", h("a", { href: to.unit(i, k) }, unitName(i, k))),
        h(
          "p",
          { class: "lead" },
          isMap
            ? "One place of the unit’s map, computed from numbers you can see. Click on the map, or use the arrow keys, to choose another place."
            : "One output, computed from numbers you can see.",
        ),
        h(
          "div",
          { class: "pick" },
          chosen.map((m) =>
            h(
              "a",
              { href: to.hand(i, k, m), "aria-current": m === n ? "true" : null },
              photo(m, `Image ${m}, ${className(label[m])}`),
            ),
          ),
          h("span", { class: "small soft" }, className(label[n])),
        ),
        h(
          "div",
          { class: "numbered" },
          card(
            isMap ? `The unit’s map, ${height} × ${width}: row ${y}, column ${x}` : "What it reads",
            whereStep(layer, wall, reading, n, k, y, x, isMap ? go : null),
          ),
          main.same
            ? card(
                "Added as it is",
                h("p", {}, `${net.layers[layer.paths[0].source]?.name ?? "the image"} gives ${number(main.total, 4)}.`),
              )
            : channelSteps(layer, main),
          card(
            `Bias${found.paths.length > 1 ? ", shortcut" : ""}${layer.activation ? `, ${activationName(layer)}` : ""}`,
            sumStep(layer, found, k),
          ),
        ),
      ],
      stays: true,
    };
  }

  function whereStep(layer, wall, reading, n, k, y, x, go) {
    const [, height, width] = layer.shape;
    const own = go && floats(reading.says).subarray(k * height * width, (k + 1) * height * width);
    const box = go && wall?.sides ? seenFrom(wall.sides, y, x) : null;
    return h(
      "div",
      { class: "pair" },
      go &&
        mapCanvas(
          own,
          height,
          width,
          [y, x, 1, 1],
          `The unit’s map, row ${y}, column ${x} marked: ${number(own[y * width + x])}`,
          go,
        ),
      h(
        "figure",
        {},
        boxed(n, box, box ? `Image ${n}, what this place sees marked` : `Image ${n}`),
        h(
          "figcaption",
          { class: "small soft" },
          box ? `What it sees: rows ${box[0]} to ${box[2]}, columns ${box[1]} to ${box[3]}` : "The image.",
        ),
      ),
    );
  }

  // A map in grey; mark: row, column, rows and columns of a box on it.
  function mapCanvas(values, rows, columns, mark, label, go = null) {
    const canvas = h("canvas", { width: columns, height: rows, class: "coarse", role: "img", "aria-label": label });
    const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [0, 1e-9]);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns, rows);
    values.forEach((v, p) => {
      const grey = Math.round(((v - low) / (high - low)) * 255);
      pixels.data.set([grey, grey, grey, 255], p * 4);
    });
    context.putImageData(pixels, 0, 0);
    const share = (part, of) => `${(part / of) * 100}%`;
    const box = h("div", {
      class: "box",
      style: {
        top: share(mark[0], rows),
        left: share(mark[1], columns),
        height: share(mark[2], rows),
        width: share(mark[3], columns),
      },
    });
    if (go) {
      canvas.classList.add("pickable");
      canvas.addEventListener("click", (event) => {
        const at = canvas.getBoundingClientRect();
        go(
          Math.floor(((event.clientY - at.top) / at.height) * rows),
          Math.floor(((event.clientX - at.left) / at.width) * columns),
        );
      });
    }
    return h("div", { class: "map" }, canvas, box);
  }

  function channelSteps(layer, main) {
    const { source } = layer.paths[0];
    const channelOf = (c) => (source == null ? channelName(main.from + c) : unitName(source, main.from + c));
    const order = [...main.sums.keys()].sort((a, b) => Math.abs(main.sums[b]) - Math.abs(main.sums[a]));
    const equation = h("div", {});
    const list = h("ol", { class: "channels" });
    const choose = (c) => {
      replace(equation, channelEquation(layer, main, c, channelOf(c)));
      for (const button of list.querySelectorAll("button"))
        button.setAttribute("aria-pressed", String(Number(button.value) === c));
    };
    for (const c of order.slice(0, LISTED)) {
      list.append(
        h(
          "li",
          {},
          h(
            "button",
            { type: "button", value: c, click: () => choose(c) },
            h("span", { class: "name" }, channelOf(c)),
            h("span", { class: main.sums[c] < 0 ? "minus" : "plus" }, signed(main.sums[c])),
          ),
        ),
      );
    }
    choose(order[0]);
    const rest = order.slice(LISTED);
    return [
      card(main.isConv ? "Patch × kernel, for one channel" : "Input × weight, for one channel", equation),
      card(
        `Sum over ${count(main.inside, "channel")}`,
        h(
          "div",
          { class: "sum-of-channels" },
          list,
          h(
            "div",
            {},
            rest.length > 0 &&
              h(
                "p",
                { class: "small soft" },
                `and ${many(rest.length)} more: ${signed(rest.reduce((sum, c) => sum + main.sums[c], 0))}`,
              ),
            h("p", {}, "All together ", h("b", {}, signed(main.products, 4))),
            main.inside > 1 && h("p", { class: "small soft" }, "Choose a channel to see its products in step 2."),
          ),
        ),
      ),
    ];
  }

  function channelEquation(layer, main, c, name) {
    const product = (a, b) => (main.given(c, a, b) === null ? null : main.given(c, a, b) * main.kernel(c, a, b));
    const table = (title, value) => grid(title, main.high, main.wide, value);
    const read = main.values.subarray(
      (main.from + c) * main.rows * main.columns,
      (main.from + c + 1) * main.rows * main.columns,
    );
    const covered = [main.top, main.left, (main.high - 1) * main.down + 1, (main.wide - 1) * main.across + 1];
    return h(
      "div",
      { class: "equation" },
      main.isConv &&
        h(
          "div",
          {},
          h("h3", {}, `It reads ${name}`),
          mapCanvas(read, main.rows, main.columns, covered, `Map of ${name}, the patch marked`),
        ),
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": `Patch, kernel and product of ${name}` },
        !main.isConv && h("h3", {}, `It reads ${name}`),
        h(
          "div",
          { class: "terms" },
          table("patch", (a, b) => main.given(c, a, b)),
          h("span", { class: "sign" }, "×"),
          table(layer.paths[0].norm ? "kernel (norm folded in)" : main.isConv ? "kernel" : "weight", (a, b) =>
            main.kernel(c, a, b),
          ),
          h("span", { class: "sign" }, "="),
          table("product", product),
          h("span", { class: "sign" }, "→"),
          h(
            "div",
            { class: "total" },
            h("span", { class: "small soft" }, "its sum"),
            h("b", { class: main.sums[c] < 0 ? "minus" : "plus" }, signed(main.sums[c])),
          ),
        ),
      ),
    );
  }

  function grid(title, rows, columns, value) {
    const cells = [...Array(rows).keys()].map((a) => [...Array(columns).keys()].map((b) => value(a, b)));
    const end = Math.max(...cells.flat().map((v) => Math.abs(v ?? 0)), 1e-12);
    const cell = (v) => {
      if (v === null)
        return h("td", { class: "padding", title: "outside the map: padding, which counts as zero" }, "0");
      const share = v / end;
      return h(
        "td",
        {
          class: isDark(mix(share)) ? "on-dark" : "on-light",
          title: String(v),
          style: { background: diverging(share) },
        },
        short(v),
      );
    };
    const size = columns > 7 ? "grid tiny" : columns > 5 ? "grid small" : "grid";
    return h(
      "table",
      { class: size },
      h("caption", {}, title),
      h(
        "tbody",
        {},
        cells.map((row) => h("tr", {}, row.map(cell))),
      ),
    );
  }

  // Whether white letters stand out more than black ones: the better of the two has 4.5 to 1 on any colour.
  function isDark(colour) {
    const linear = colour.map((v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    return light + 0.05 < Math.sqrt(1.05 * 0.05);
  }

  function short(v) {
    const size = Math.abs(v);
    return (size >= 100 ? v.toFixed(0) : size >= 10 ? v.toFixed(1) : v.toFixed(2)).replace("-", "−");
  }

  function sumStep(layer, { paths, sum, result, given, agrees }, k) {
    const term = (text, value) =>
      h(
        "span",
        { class: "term" },
        text && `${text} `,
        h("b", { class: value < 0 ? "minus" : "plus" }, signed(value, 4)),
      );
    const of = (path, p) => {
      const about = layer.paths[p];
      const source = about.source == null ? channelName(k) : unitName(about.source, k);
      if (path.same) return [p > 0 && " + ", term(`${source}, as it is,`, path.total)];
      if (p > 0) return [" + ", term(`shortcut ${about.weights}`, path.total)];
      return [term("products", path.products), " + ", term(about.norm ? "bias (of the norm)" : "bias", path.bias)];
    };
    const name = activationName(layer);
    const answer = h("span", { class: "term answer" }, number(result ?? sum, 4));
    const says =
      result === null
        ? `What follows, ${name}, is not computed here; the network says ${number(given, 4)}.`
        : `the network says ${number(given, 4)} ${agrees ? "✓" : "✗"}`;
    return [
      h("p", { class: "sums" }, paths.map(of), " = ", term("", sum)),
      h(
        "p",
        { class: "sums" },
        layer.activation ? [`${name}(${number(sum, 4)}) = `] : "Together ",
        answer,
        " ",
        h("span", { class: "soft small" }, says),
      ),
      h("p", { class: "small soft" }, "Numbers are kept in half precision, so that the fourth digit can differ."),
    ];
  }

  ATLAS.pages.hand = handPage;
  ATLAS.hand = { compute };
}
