"use strict";
// The keyboard. A page says where its keys lead: {before, after, up, arrows}.
{
  const { h, replace } = ATLAS.elements;

  const KEYS = [
    ["/", "search"],
    ["← →", "the unit, class or image before or after this one, in the order of the wall"],
    ["u", "up, to the layer or the list"],
    ["g", "the overview"],
    ["d", "what each depth responds to"],
    ["w", "into the wall, or back into its tiles; arrows move in it"],
    ["n", "the note"],
    ["t", "dark or light"],
    ["?", "this"],
  ];

  let keys = {};
  const settle = (found) => {
    keys = found;
  };

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || document.getElementById("dialog").open) return;
    const tile = event.target.closest?.(".wall .tile");
    const done = tile && event.key.startsWith("Arrow") ? move(tile, event.key) : act(event.key);
    if (done) event.preventDefault();
  }

  // To the tile beside, above or below.
  function move(tile, key) {
    const tiles = [...tile.closest(".wall").querySelectorAll(".tile")];
    const columns = getComputedStyle(tile.parentNode).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    const next = tiles[tiles.indexOf(tile) + step];
    next?.focus();
    return true;
  }

  function act(key) {
    const go = (href) => {
      if (href != null && href !== false) location.hash = href;
      return href != null && href !== false;
    };
    const focus = (element) => {
      element?.focus();
      return Boolean(element);
    };
    const click = (id) => {
      document.getElementById(id).click();
      return true;
    };
    if (keys.arrows?.[key]) {
      keys.arrows[key]();
      return true;
    }
    switch (key) {
      case "ArrowLeft":
      case "k":
        return go(keys.before);
      case "ArrowRight":
      case "j":
        return go(keys.after);
      case "u":
        return go(keys.up);
      case "g":
        return go("#");
      case "d":
        return go("#/depths");
      case "n":
        return focus(document.getElementById("note"));
      case "w":
        return focus(document.querySelector(".wall .tile"));
      case "/":
        return focus(document.getElementById("query"));
      case "t":
        return click("theme");
      case "?":
        return click("about");
      default:
        return false;
    }
  }

  function start() {
    const dialog = document.getElementById("dialog");
    replace(
      dialog,
      h("h2", { id: "dialog-title" }, "Keys"),
      h(
        "dl",
        { class: "keys" },
        KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]),
      ),
      ATLAS.pages.made(ATLAS.net.origin),
      h("button", { type: "button", click: () => dialog.close() }, "Close"),
    );
    document.getElementById("about").addEventListener("click", () => dialog.showModal());
    document.addEventListener("keydown", press);
  }

  ATLAS.keys = { settle, start };
}
