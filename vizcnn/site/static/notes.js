"use strict";
// Notes of people: those that came with the atlas, and those of this browser, which stand in their place.
{
  const { h, card } = ATLAS.elements;
  const { count } = ATLAS.words;
  let own = {};

  const place = () => `vizcnn-atlas-notes-${ATLAS.net.origin.weights}`;

  function read() {
    try {
      own = strings(JSON.parse(localStorage.getItem(place()) || "{}"));
    } catch {
      own = {};
    }
  }

  // Of what a file holds, texts alone.
  function strings(object) {
    const pairs = object && typeof object === "object" ? Object.entries(object) : [];
    return Object.fromEntries(pairs.filter(([, value]) => typeof value === "string"));
  }

  function keep() {
    try {
      localStorage.setItem(place(), JSON.stringify(own));
      return true;
    } catch {
      return false; // a private window, or full
    }
  }

  const get = (page) => own[page] ?? ATLAS.net.notes[page] ?? "";
  const all = () => ({ ...ATLAS.net.notes, ...own });

  function set(page, text) {
    if (text === (ATLAS.net.notes[page] ?? "")) delete own[page];
    else own[page] = text;
    return keep();
  }

  function save() {
    const content = { format: 1, model: ATLAS.net.origin.model, weights: ATLAS.net.origin.weights, notes: all() };
    const file = new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
    const link = h("a", { href: URL.createObjectURL(file), download: "atlas-notes.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function notesCard(page) {
    const said = h("span", { class: "small soft", role: "status" });
    const area = h("textarea", {
      id: "note",
      rows: 4,
      "aria-label": `Note on ${page}`,
      placeholder: "What is it for? What would prove you wrong?",
    });
    area.value = get(page);
    area.addEventListener("input", () => {
      said.textContent = set(page, area.value) ? "Kept in this browser." : "This browser keeps nothing: save the file.";
    });
    const readFile = async (event) => {
      try {
        const found = strings(JSON.parse(await event.target.files[0].text()).notes);
        Object.assign(own, found);
        area.value = get(page);
        said.textContent =
          `${count(Object.keys(found).length, "note")} read.` + (keep() ? "" : " This browser keeps nothing.");
      } catch {
        said.textContent = "This is no file of notes.";
      }
    };
    const file = h("input", {
      type: "file",
      accept: ".json,application/json",
      hidden: true,
      "aria-label": "File of notes",
      change: readFile,
    });
    return card(
      "Notes",
      area,
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", click: save }, "Save all notes"),
        h("button", { type: "button", click: () => file.click() }, "Read a file"),
        file,
        said,
      ),
    );
  }

  ATLAS.notes = { read, get, all, notesCard };
}
