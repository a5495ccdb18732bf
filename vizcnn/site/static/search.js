"use strict";
// Search over layers, units, classes and notes. A unit is found by its name, so that their number does not matter.
{
  const { h, replace } = ATLAS.elements;
  const { to, hidden, className, classLabel, unitName, layerNumber } = ATLAS.places;
  const { face, classFace, photo } = ATLAS.pictures;

  const MOST = 12;

  // What the words lead to, best first: {href, text, kind, face}.
  function search(words) {
    const asked = words.trim().toLowerCase();
    if (!asked) return [];
    const found = [];
    const add = (rank, hit) => found.push([rank, hit]);
    const unitAsked = asked.match(/^(.*?)[/:\s]?(\d+)$/);
    for (const i of hidden()) {
      const layer = ATLAS.net.layers[i];
      const name = layer.name.toLowerCase();
      if (name.includes(asked))
        add(name === asked ? 0 : 3, {
          href: to.layer(i),
          text: layer.name,
          kind: "layer",
          face: () => face(i, layer.strongest[0] ?? 0, { alt: "" }),
        });
      if (!unitAsked || !name.includes(unitAsked[1])) continue;
      const k = Number(unitAsked[2]);
      if (k < layer.shape[0])
        add(name === unitAsked[1] ? 0 : unitAsked[1] ? 1 : 4, {
          href: to.unit(i, k),
          text: unitName(i, k),
          kind: "unit",
          face: () => face(i, k, { alt: "" }),
        });
    }
    ATLAS.net.classes.forEach((name, c) => {
      const at = name.toLowerCase().indexOf(asked);
      if (at >= 0)
        add(name.length === asked.length ? 0.5 : at === 0 ? 1 : 2, {
          href: to.class(c),
          text: classLabel(c),
          kind: "class",
          face: () => classFace(c, { alt: "" }),
        });
    });
    for (const [page, note] of Object.entries(ATLAS.notes.all())) {
      if (note.toLowerCase().includes(asked)) add(2.5, noteHit(page, note));
    }
    return found
      .sort((a, b) => a[0] - b[0])
      .map(([, hit]) => hit)
      .filter(Boolean)
      .slice(0, MOST);
  }

  function noteHit(page, note) {
    const text = `${page}: ${note.slice(0, 60)}`;
    const [, kind, n] = page.match(/^(class|image) (\d+)$/) ?? [];
    if (kind === "class" && n < ATLAS.net.classes.length)
      return {
        href: to.class(Number(n)),
        text: `${className(Number(n))}: ${note.slice(0, 60)}`,
        kind: "note",
        face: () => classFace(Number(n), { alt: "" }),
      };
    if (kind === "image") return { href: to.image(Number(n)), text, kind: "note", face: () => photo(Number(n), "") };
    const cut = page.lastIndexOf("/");
    const i = layerNumber(page.slice(0, cut));
    const k = Number(page.slice(cut + 1));
    if (i < 0 || !Number.isInteger(k) || k < 0 || k >= ATLAS.net.layers[i].shape[0]) return null;
    return { href: to.unit(i, k), text, kind: "note", face: () => face(i, k, { alt: "" }) };
  }

  // The field is a combobox: the focus stays in it, and it says which of the list is meant.
  function start() {
    const query = document.getElementById("query");
    const list = document.getElementById("hits");
    let hits = [];
    let at = 0;

    function mark() {
      [...list.children].forEach((item, n) => item.setAttribute("aria-selected", String(n === at)));
      list.children[at]?.scrollIntoView({ block: "nearest" });
      if (hits.length) query.setAttribute("aria-activedescendant", `hit-${at}`);
      else query.removeAttribute("aria-activedescendant");
    }

    function draw() {
      hits = search(query.value);
      at = 0;
      replace(
        list,
        hits.map((hit, n) =>
          h(
            "li",
            { role: "option", id: `hit-${n}`, click: () => open(n) },
            hit.face(),
            h("span", { class: "text" }, hit.text),
            h("span", { class: "soft" }, hit.kind),
          ),
        ),
      );
      if (!hits.length)
        replace(list, h("li", { role: "option", class: "soft", "aria-disabled": "true" }, "Nothing of that name."));
      toggle(Boolean(query.value.trim()));
      mark();
    }

    function toggle(isOpen) {
      list.hidden = !isOpen;
      query.setAttribute("aria-expanded", String(isOpen));
    }

    function close() {
      query.value = "";
      hits = [];
      toggle(false);
      mark();
    }

    function open(n) {
      if (!hits[n]) return;
      location.hash = hits[n].href;
      close();
      query.blur();
    }

    query.addEventListener("input", draw);
    query.addEventListener("focus", () => query.value.trim() && draw());
    query.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && hits.length) {
        event.preventDefault();
        at = (at + step + hits.length) % hits.length;
        mark();
      } else if (event.key === "Enter") {
        event.preventDefault();
        open(at);
      } else if (event.key === "Escape") {
        close();
        query.blur();
      }
    });
    document.getElementById("find").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("pointerdown", (event) => {
      if (!document.getElementById("find").contains(event.target)) toggle(false);
    });
  }

  ATLAS.search = { search, start };
}
