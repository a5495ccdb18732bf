"use strict";
// The widget of vizcnn.explore. Python writes about, photo, answers, map, unit and status; this page writes wish.
{
  const { h, replace } = ATLAS.elements;
  const { number, percent, signed, count } = ATLAS.words;
  const OVERSEEN = 5; // seconds without a sign of the kernel, after which the page says so
  const SHOWN = 0.3; // seconds of waiting that nobody needs to be told of

  const makeWidget = (style) => ({ render: ({ model, el }) => render(model, el, style) });

  function render(model, el, style) {
    const host = h("div", { class: "vizcnn-explore", "data-lm-suppress-shortcuts": "true" });
    const root = host.attachShadow({ mode: "open" });
    const stopTheme = followTheme(host);
    const desk = makeDesk(model);
    const parts = [makeTools, makeStage, makeAnswers, makeUnits].map((make) => make(model, desk));
    const [tools, stage, answers, units] = parts.map((part) => part.element);
    root.append(
      h("style", {}, style),
      h(
        "section",
        { class: "explore", "aria-label": `Explore ${model.get("about").model}` },
        tools,
        desk.element,
        h("div", { class: "columns" }, stage, h("div", { class: "stacked" }, answers, units)),
      ),
    );
    const stops = ["photo", "answers", "map", "unit", "wish", "status"].map((name) => {
      const update = () => [desk, ...parts].forEach((part) => part.update(name));
      model.on(`change:${name}`, update);
      return () => model.off(`change:${name}`, update);
    });
    [desk, ...parts].forEach((part) => part.update(null));
    el.append(host);
    return () => [stopTheme, desk.stop, ...stops].forEach((stop) => stop());
  }

  // As dark or light as the notebook, also when that changes; where it does not say, as the system is.
  function followTheme(host) {
    const { body } = document;
    const read = () => {
      const light = body.dataset.jpThemeLight;
      const kind = body.dataset.vscodeThemeKind || "";
      if (light) host.dataset.theme = light === "true" ? "light" : "dark";
      else if (kind) host.dataset.theme = kind.includes("light") ? "light" : "dark";
    };
    const observer = new MutationObserver(read);
    observer.observe(body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind"] });
    read();
    return () => observer.disconnect();
  }

  // --------------------------------------------------------------------------------------------------------- the desk

  // Sends one wish at a time, the latest when the one before is done, and says what is waited for.
  function makeDesk(model) {
    const own = Math.random().toString(36).slice(2);
    let count = 0;
    let sent = null; // the id of the wish that is under way
    let since = 0;
    let waiting = false;
    const text = h("span", { role: "status" });
    const bar = h("progress", { "aria-label": "Done", max: 1, hidden: true });
    const element = h("p", { class: "desk small soft" }, text, bar);
    const timer = setInterval(() => tell(), 250);

    const wished = () => desk.next || model.get("wish");
    function wish(change) {
      const another = ["image", "target", "method"].some((name) => name in change);
      desk.next = { ...wished(), ...(another && { trust: false }), ...change, id: `${own}-${++count}` };
      waiting = true;
      if (!sent) send();
    }

    function send() {
      waiting = false;
      [sent, since] = [desk.next.id, Date.now()];
      model.set("wish", desk.next);
      model.save_changes();
      tell();
    }

    function update(name) {
      if (name === "wish" && !sent) desk.next = null; // another view of the same widget has chosen
      const { done } = model.get("status");
      if (name === "status" && done && done === sent) {
        sent = null;
        if (waiting) send();
      }
      tell();
    }

    function tell() {
      const { busy, share, error, done } = model.get("status");
      const seconds = (Date.now() - since) / 1000;
      element.dataset.busy = String(Boolean(sent));
      bar.hidden = !sent || share == null;
      if (share != null) bar.value = share;
      element.classList.toggle("failed", !sent && Boolean(error));
      const said = () => {
        if (!sent) return error || "";
        const heard = done !== sent && (busy || share != null);
        if (heard && seconds > SHOWN) return `${busy}: ${Math.round(seconds)} s. To stop it, interrupt the kernel.`;
        if (seconds < SHOWN) return text.textContent;
        if (seconds < OVERSEEN) return "The network is asked …";
        return `No answer for ${Math.round(seconds)} s: is a cell running, or the kernel gone? Then run the cell again.`;
      };
      const now = said();
      if (text.textContent !== now) text.textContent = now;
    }

    const desk = { element, wish, wished, update, next: null, stop: () => clearInterval(timer) };
    return desk;
  }

  // -------------------------------------------------------------------------------------------------------- the tools

  function makeTools(model, desk) {
    const { images, methods, labels } = model.get("about");
    const step = (by) => () => choose((desk.wished().image + by + images.length) % images.length);
    const choose = (image) => desk.wish({ image, boxes: [] });
    const image = picker(images, (n) => choose(n), "Image");
    const method = picker(methods, (n) => desk.wish({ method: methods[n] }), "Method");
    const target = h("input", {
      type: "text",
      list: "labels",
      placeholder: "predicted class",
      spellcheck: "false",
      autocomplete: "off",
      change: () => desk.wish({ target: target.value.trim() }),
    });
    const several = images.length > 1;
    const element = h(
      "div",
      { class: "tools" },
      h(
        "label",
        {},
        "Image",
        several && button("◀", step(-1), "Image before"),
        image,
        several && button("▶", step(1), "Next image"),
      ),
      h("label", {}, "Target", target),
      h(
        "datalist",
        { id: "labels" },
        labels.map((label) => h("option", { value: label })),
      ),
      h("label", {}, "Method", method),
    );
    function update(name) {
      if (name && name !== "wish") return;
      const wish = desk.wished();
      image.value = wish.image;
      method.value = methods.indexOf(wish.method);
      target.value = wish.target;
    }
    return { element, update };
  }

  // -------------------------------------------------------------------------------------------------------- the stage

  function makeStage(model, desk) {
    const view = ATLAS.overlay.open({
      label: "The image under the map; arrow keys read the map’s numbers, Enter covers the part around",
      hint: "Point at the image to read the map’s numbers; click, or press Enter, to cover a part.",
      press: (place) => desk.cover(place),
    });
    const judge = button("How far can it be believed?", () => desk.wish({ trust: true }));
    const fault = h("div", {});
    const finding = h("p", { class: "small below" });
    const element = h(
      "div",
      { class: "card" },
      h("h2", {}, "The image"),
      view.element,
      h("div", { class: "buttons" }, judge),
      finding,
      fault,
    );

    function update(name) {
      if (name && !["photo", "map"].includes(name)) return;
      const [photo, map] = [model.get("photo"), model.get("map")];
      if (photo.error) return void replace(fault, failure(desk, photo));
      element.style.setProperty("--shape", `${photo.size[1]} / ${photo.size[0]}`);
      view.show(
        picture(photo),
        map.error ? [] : [readMap(map)],
        photo.boxes.map((box) => frame(box, photo.size)),
      );
      judge.hidden = Boolean(map.error || !map.trust.missing);
      finding.textContent = map.finding ? `${map.finding}.` : "";
      if (map.finding && photo.boxes.length) finding.textContent += " The map is of the image with nothing covered.";
      replace(fault, map.error && failure(desk, map, "No map:"), notes(map));
    }
    return { element, update };
  }

  // What the network sees of the photograph.
  function picture(photo) {
    const covered = photo.boxes.length ? `, ${count(photo.boxes.length, "part")} covered` : "";
    return h("img", { src: photo.url, alt: photo.name + covered });
  }

  // How large the part is that a click covers, and beside what.
  function makeCover(model, desk) {
    const { fill, side } = model.get("about");
    const size = h("input", { type: "range", min: 1, max: side, value: side, "aria-label": "Size of what is covered" });
    const says = h("span", { class: "value" });
    const more = h("input", { type: "checkbox" });
    const uncover = button("Uncover", () => desk.wish({ boxes: [] }));
    const tell = () => (says.textContent = `${size.value} px`);
    size.addEventListener("input", tell);
    const element = h(
      "fieldset",
      {},
      h("legend", {}, "Cover a part"),
      h("label", { class: "slider small" }, "Size", size, says),
      h("div", { class: "choices" }, h("label", { class: "small" }, more, " beside what is covered"), uncover),
      h("p", { class: "small soft" }, describeFill(fill)),
    );

    desk.cover = ([down, across]) => {
      const [rows, columns] = model.get("photo").size;
      const length = Number(size.value);
      const [height, width] = [Math.min(length, rows), Math.min(length, columns)];
      const clip = (at, most) => Math.max(0, Math.min(most, Math.round(at)));
      const [y, x] = [clip(down * rows - height / 2, rows - height), clip(across * columns - width / 2, columns - width)];
      const box = [y, x, height, width];
      desk.wish({ boxes: more.checked ? [...desk.wished().boxes, box] : [box] });
    };

    function update(name) {
      const photo = model.get("photo");
      if ((name && name !== "photo") || photo.error) return;
      const before = size.value;
      size.max = Math.max(1, Math.round(Math.min(...photo.size) / 2));
      if (name === null) size.value = side;
      else size.value = before;
      tell();
      uncover.disabled = !photo.boxes.length;
    }
    return { element, update };
  }

  const FILLS = {
    blur: "with the image blurred, which takes its detail and keeps its colours",
    mean: "with the mean colour of the image",
    model: "with the mean colour of the images that the network was trained on",
  };
  const describeFill = (fill) =>
    `Parts are covered as occlusion covers them (fill: ${fill}): ${FILLS[fill] || "with that colour"}. Each time the network runs again.`;

  function frame([y, x, height, width], [rows, columns]) {
    const share = (part, whole) => `${(part / whole) * 100}%`;
    return h("div", {
      class: "covered",
      style: { top: share(y, rows), left: share(x, columns), height: share(height, rows), width: share(width, columns) },
    });
  }

  // A map as the overlay takes it, of the very numbers: 127 stands for its end.
  function readMap(map) {
    const { buffer, byteOffset, byteLength } = map.values;
    const values = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
    return { ...map, values: Float64Array.from(values, (value) => (value / map.end) * 127) };
  }

  // ------------------------------------------------------------------------------------------------------ the answers

  function makeAnswers(model, desk) {
    const body = h("div", {});
    const cover = makeCover(model, desk);
    const element = h("div", { class: "card" }, h("h2", {}, "The answer"), body, cover.element);

    function update(name) {
      cover.update(name);
      if (name && name !== "answers") return;
      const found = model.get("answers");
      if (found.error) return void replace(body, failure(desk, found));
      const covered = found.after != null;
      replace(
        body,
        found.classes.length > 0 && [
          h("p", { class: "small soft" }, covered ? "Before, and with the part covered. Press a class to explain it." : "Press a class to explain it."),
          h("div", { class: covered ? "odds both" : "odds" }, found.classes.map((one) => row(one, found, covered))),
        ],
        h(
          "p",
          { class: "score below", role: "status" },
          h("span", { class: "soft" }, `${found.quantity} of ${found.target}: `),
          h("b", {}, number(found.before, 4)),
          covered && [
            " → ",
            h("b", {}, number(found.after, 4)),
            h("span", { class: found.after < found.before ? "minus" : "plus" }, ` (${signed(found.after - found.before)})`),
          ],
        ),
        found.changed && [
          h("p", { class: "why" }, "The network says something else than when the map was made: it has changed since."),
          h("div", { class: "buttons" }, askAnew(desk)),
        ],
        notes(found),
      );
    }

    function row([n, label, before, after], found, covered) {
      const asked = found.spec === String(n) || found.target === label;
      const track = (share, kind) => h("i", { class: kind, style: { width: `${share * 100}%` } });
      return [
        h(
          "button",
          { type: "button", class: "plain label", "aria-pressed": String(asked), title: label, click: () => desk.wish({ target: `#${n}` }) },
          label,
        ),
        h("span", { class: "track" }, track(before, covered ? "past" : null), covered && track(after, "now")),
        h("span", { class: "value" }, covered ? `${percent(before, 1)} → ${percent(after, 1)}` : percent(before, 1)),
      ];
    }
    return { element, update };
  }

  // -------------------------------------------------------------------------------------------------- layers and units

  function makeUnits(model, desk) {
    const { layers } = model.get("about");
    const names = layers.map(([name, units]) => `${name} (${count(units, "unit")})`);
    const layer = picker(names, (n) => desk.wish({ layer: layers[n][0], unit: 0 }), "Layer");
    const order = picker(["by number", "strongest first"], () => {}, "Order");
    const unit = h("input", { type: "number", min: 0, "aria-label": "Unit", change: () => desk.wish({ unit: Number(unit.value) }) });
    const of = h("span", { class: "small soft" });
    const view = ATLAS.overlay.open({ label: "The image under what the unit makes of it; arrow keys read the numbers" });
    const fault = h("div", {});
    const said = h("p", { class: "small" });
    const explain = button("Explain this unit", () => desk.wish({ target: `${desk.wished().layer}:${desk.wished().unit}` }));
    // What is shown may be an error, or still of the layer before.
    const step = (by) => () => {
      const [wished, found] = [desk.wished(), model.get("unit")];
      const [, total] = layers.find(([name]) => name === wished.layer);
      const ranked = order.value === "1" && found.layer === wished.layer ? found.order : [...Array(total).keys()];
      const at = Math.max(0, ranked.indexOf(wished.unit));
      desk.wish({ unit: ranked[(at + by + total) % total] });
    };
    const tools = h(
      "div",
      { class: "tools" },
      h("label", {}, "Layer", layer),
      h("label", {}, "Unit", button("◀", step(-1), "Unit before"), unit, button("▶", step(1), "Next unit"), of),
      h("label", {}, "Order", order),
    );
    const element = h("div", { class: "card units" }, h("h2", {}, "What a unit sees"), tools, view.element, fault, said, h("div", { class: "buttons" }, explain));

    function update(name) {
      if (name && !["unit", "photo", "wish"].includes(name)) return;
      const wish = desk.wished();
      const [photo, found] = [model.get("photo"), model.get("unit")];
      layer.value = layers.findIndex(([one]) => one === wish.layer);
      unit.value = wish.unit;
      for (const part of [tools, view.element, explain]) part.hidden = !layers.length;
      if (found.error) {
        said.textContent = "";
        return void replace(fault, failure(desk, found));
      }
      if (photo.error) return;
      element.style.setProperty("--shape", `${photo.size[1]} / ${photo.size[0]}`);
      unit.max = found.order.length - 1;
      of.textContent = `of ${found.order.length}, ${found.rows} × ${found.columns} each`;
      view.show(picture(photo), [readMap(found)]);
      const rank = found.order.indexOf(found.unit) + 1;
      const [value, row, column] = found.peak;
      said.textContent =
        `Highest ${number(value)} at row ${row}, column ${column}: number ${rank} of ${found.order.length} units here` +
        `${found.covered ? `, with ${count(found.covered, "part")} of the image covered` : ""}.`;
      replace(fault, notes(found));
    }
    return { element, update };
  }

  // ------------------------------------------------------------------------------------------------------------- parts

  // A list to choose from by number.
  const picker = (texts, choose, label) =>
    h(
      "select",
      { "aria-label": label, change: (event) => choose(Number(event.target.value)) },
      texts.map((text, n) => h("option", { value: n }, text)),
    );

  const button = (text, click, label) => h("button", { type: "button", click, "aria-label": label }, text);
  const failure = (desk, part, what = "") => [
    h("p", { class: "why", role: "alert" }, `${what} ${part.error}`.trim()),
    h("div", { class: "buttons" }, askAnew(desk)),
  ];
  const askAnew = (desk) => button("Ask anew", () => desk.wish({ again: (desk.wished().again || 0) + 1 }));
  const notes = (part) => (part.notes || []).map((text) => h("p", { class: "why" }, text));

  ATLAS.explore = { makeWidget };
}
