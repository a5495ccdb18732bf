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
    const view = open();
    view.show(photo, maps);
    return view.element;
  }

  const POINT = "Point at the image, touch it, or use the arrow keys to read numbers.";

  // The same for what changes: `show` takes another photograph, other maps and marks, elements that lie on top.
  // press: is told the place that is clicked, or chosen with Enter or the space bar, as shares of height and width.
  function open({ label = "The image under the map; arrow keys read the map’s numbers", hint = POINT, press } = {}) {
    let maps = [];
    let at = 0;
    let opacity = 0.75;
    let place = null;
    const canvas = h("canvas", { role: "img", hidden: true });
    const cross = h("div", { class: "cross", hidden: true });
    const stage = h("div", { class: "stage-of-maps", role: "group", "aria-label": label });
    const switches = h("div", { hidden: true });
    const said = h("p", { class: "reading", role: "status" });
    const legend = h("div", { class: "legend-of-map" });

    function show(photo, others, marks = []) {
      const names = (some) => some.map((map) => map.name).join("\n");
      const same = names(maps) === names(others) && switches.firstChild;
      maps = others;
      at = Math.min(at, Math.max(0, maps.length - 1));
      replace(stage, photo, canvas, marks, cross);
      if (maps.length || press) stage.tabIndex = 0;
      else stage.removeAttribute("tabindex");
      for (const part of [switches, legend, slider]) part.hidden = !maps.length;
      said.hidden = !maps.length && !press;
      if (!same) replace(switches, choice("Map", choices(), at, choose));
      paint();
    }

    const choices = () => [[-1, "photograph"], ...maps.map((map, n) => [n, map.name])];
    const choose = (n) => {
      at = n;
      paint();
    };

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
        map.trust && trustLine(map.trust),
      );
    }

    function tell() {
      const map = maps[at];
      cross.hidden = !place || !(map || press);
      if (place) {
        cross.style.setProperty("top", `${place[0] * 100}%`);
        cross.style.setProperty("left", `${place[1] * 100}%`);
      }
      if (!map || !place) return void (said.textContent = map || press ? hint : "");
      const [row, column] = [Math.floor(place[0] * map.rows), Math.floor(place[1] * map.columns)];
      const value = (map.values[row * map.columns + column] / 127) * map.end;
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
    if (press)
      stage.addEventListener("click", (event) => {
        point(event);
        press(place);
      });
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const map = maps[at];
      const pressed = press && (event.key === "Enter" || event.key === " ");
      if (!pressed && !(step && (map || press))) return;
      event.preventDefault();
      event.stopPropagation();
      place ||= [0.5, 0.5];
      if (pressed) press(place);
      else place = place.map((from, axis) => move(from, step[axis] * (event.shiftKey ? 8 : 1), map, axis));
      tell();
    });

    // A step of so many cells from a place, down (axis 0) or across, to the middle of a cell.
    function move(from, step, map, axis) {
      const size = map ? [map.rows, map.columns][axis] : 32;
      const cell = Math.floor(from * size) + step;
      return (Math.min(size - 1, Math.max(0, cell)) + 0.5) / size;
    }

    const slider = h(
      "label",
      { class: "slider small soft" },
      "Map’s strength",
      h("input", {
        type: "range",
        min: 0,
        max: 100,
        value: 75,
        input: (event) => {
          opacity = event.target.value / 100;
          paint();
        },
      }),
    );
    return { element: h("div", { class: "overlay" }, stage, switches, said, legend, slider), show };
  }

  function trustLine(trust) {
    if (trust.missing) return h("p", { class: "trust" }, h("b", {}, "– not judged"), `: ${trust.missing}`);
    const kind = trust.verdict === "supported" ? "trust good" : "trust";
    return h("p", { class: kind }, h("b", {}, `${trust.sign} ${trust.verdict}`), `: ${trust.why.join("; ")}.`);
  }

  ATLAS.overlay = { overlay, open };
}
