"use strict";
// Maps over a photograph, one at a time, with the number under the pointer, the finger or the arrow keys.
// It knows neither the network nor the files: a notebook can use it as it is.
{
  const { h, replace, choice } = ATLAS.elements;
  const { number } = ATLAS.words;
  const BLUE = [43, 108, 176];
  const ORANGE = [230, 105, 5];

  // photo: an element. maps: {name, meaning, target, rows, columns, values, end, signed, trust}; values from -127 to 127,
  // of which 127 stands for `end`; trust: {sign, verdict, why} or {missing}.
  function overlay(photo, maps) {
    let at = maps.length ? 0 : -1;
    let opacity = 0.75;
    let place = null;
    const canvas = h("canvas", { role: "img", hidden: true });
    const cross = h("div", { class: "cross", hidden: true });
    const stage = h(
      "div",
      {
        class: "stage-of-maps",
        tabindex: maps.length ? 0 : null,
        role: "group",
        "aria-label": "The image under the map; arrow keys read the map’s numbers",
      },
      photo,
      canvas,
      cross,
    );
    const said = h("p", { class: "reading", role: "status" });
    const legend = h("div", { class: "legend-of-map" });

    function paint() {
      const map = maps[at];
      canvas.hidden = !map;
      tell();
      if (!map) return void replace(legend);
      canvas.width = map.columns;
      canvas.height = map.rows;
      canvas.setAttribute("aria-label", `${map.name} for ${map.target}: ${map.meaning}, up to ${number(map.end)}`);
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(map.columns, map.rows);
      map.values.forEach((value, p) => {
        const strength = Math.min(1, (Math.abs(value) / 127) * 1.25) * 255 * opacity;
        pixels.data.set([...(value < 0 ? BLUE : ORANGE), strength], p * 4);
      });
      context.putImageData(pixels, 0, 0);
      replace(
        legend,
        h("p", { class: "small soft" }, `${map.meaning}, for ${map.target}`),
        h("div", { class: map.signed ? "ramp" : "ramp one-sided" }),
        h(
          "p",
          { class: "ends small soft" },
          h("span", {}, map.signed ? number(-map.end) : "0"),
          h("span", {}, number(map.end)),
        ),
        trustLine(map.trust),
      );
    }

    function tell() {
      const map = maps[at];
      cross.hidden = !map || !place;
      if (cross.hidden)
        return void (said.textContent = map
          ? "Point at the image, touch it, or use the arrow keys to read numbers."
          : "");
      const [row, column] = [Math.floor(place[0] * map.rows), Math.floor(place[1] * map.columns)];
      const value = (map.values[row * map.columns + column] / 127) * map.end;
      cross.style.setProperty("top", `${place[0] * 100}%`);
      cross.style.setProperty("left", `${place[1] * 100}%`);
      said.textContent = `${number(value)} at row ${row}, column ${column}`;
    }

    const point = (event) => {
      const box = stage.getBoundingClientRect();
      const share = (x, from, length) => Math.min(0.999, Math.max(0, (x - from) / length));
      place = [share(event.clientY, box.top, box.height), share(event.clientX, box.left, box.width)];
      tell();
    };
    stage.addEventListener("pointermove", point);
    stage.addEventListener("pointerdown", point);
    stage.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "mouse") return; // what a finger has found stays
      place = null;
      tell();
    });
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const map = maps[at];
      if (!step || !map) return;
      event.preventDefault();
      event.stopPropagation();
      const size = [map.rows, map.columns];
      place = (place || [0.5, 0.5]).map((from, axis) => {
        const cell = Math.floor(from * size[axis]) + step[axis];
        return (Math.min(size[axis] - 1, Math.max(0, cell)) + 0.5) / size[axis];
      });
      tell();
    });

    const switches =
      maps.length > 0 &&
      choice("Map", [[-1, "photograph"], ...maps.map((map, n) => [n, map.name])], at, (n) => {
        at = n;
        paint();
      });
    const strength = h("input", {
      type: "range",
      min: 0,
      max: 100,
      value: 75,
      input: (event) => {
        opacity = event.target.value / 100;
        paint();
      },
    });
    paint();
    return h(
      "div",
      { class: "overlay" },
      stage,
      switches,
      maps.length > 0 && [said, legend, h("label", { class: "slider small soft" }, "Map’s strength", strength)],
    );
  }

  function trustLine(trust) {
    if (trust.missing) return h("p", { class: "trust" }, h("b", {}, "– not judged"), `: ${trust.missing}`);
    const kind = trust.verdict === "supported" ? "trust good" : "trust";
    return h("p", { class: kind }, h("b", {}, `${trust.sign} ${trust.verdict}`), `: ${trust.why.join("; ")}.`);
  }

  ATLAS.overlay = { overlay, trustLine };
}
