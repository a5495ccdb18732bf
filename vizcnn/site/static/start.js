"use strict";
// The page itself: which address shows what, the contents at the side, dark and light, and where the focus goes.
{
  const { h, append, replace, breakable } = ATLAS.elements;
  const { many } = ATLAS.words;
  const { settle, to, hidden, unescape, layerNumber, classLabel, handImages } = ATLAS.places;
  const { pages } = ATLAS;
  const find = (id) => document.getElementById(id);

  const scrolled = new Map(); // how far each address was scrolled
  let turn = 0;
  let last = null; // the page before: {hash, unit}

  const whole = (text) => (/^\d+$/.test(text ?? "") ? Number(text) : NaN);

  async function choose(hash) {
    const parts = hash.split("/").map(unescape);
    if (!hash) return pages.overview();
    if (parts[0] === "") {
      const [, kind, which, unit, image, place] = parts;
      if (kind === "depths") return pages.depths();
      if (kind === "classes") return pages.classes();
      if (kind === "class") return pages.class(whole(which));
      if (kind === "changes") return pages.changes();
      if (kind === "images") return pages.images();
      if (kind === "image") return pages.image(whole(which));
      if (kind === "by-hand")
        return pages.hand(layerOf(which), whole(unit), whole(image), place?.split(",").map(whole));
      throw new Error("There is no such page.");
    }
    const i = layerOf(parts[0]);
    if (ATLAS.net.layers[i].output) return parts[1] ? pages.class(whole(parts[1])) : pages.classes();
    return parts[1] ? pages.unit(i, whole(parts[1])) : pages.wall(i);
  }

  function layerOf(name) {
    const i = layerNumber(name);
    if (i < 0) throw new Error(`There is no layer ${name}.`);
    return i;
  }

  async function show() {
    const own = ++turn;
    const hash = location.hash.slice(1);
    const page = await choose(hash).catch(fail);
    if (own !== turn) return; // another page was asked for meanwhile
    ATLAS.keys.settle({ up: hash ? "#" : null, ...page.keys });
    replace(find("main"), page.body);
    replace(
      find("crumbs"),
      page.crumbs.map(([text, href]) => (href ? h("a", { href }, text) : h("span", { "aria-current": "page" }, text))),
    );
    document.title = [...page.crumbs.map(([text]) => text).reverse(), `${ATLAS.net.title} – atlas`].join(" – ");
    const stays = page.stays && last?.stays && last.start === startOf(hash);
    if (!stays) arrive(page, hash);
    mark(hash);
    last = { hash, unit: page.unit, stays: page.stays, start: startOf(hash) };
  }

  const fail = (error) => ({
    crumbs: [],
    body: [
      h("h1", {}, "Nothing here"),
      h("p", {}, error.message),
      h("p", {}, h("a", { href: "#" }, "To the overview")),
    ],
  });
  const startOf = (hash) => hash.split("/").slice(0, 5).join("/");

  // A screen reader begins at the new page; who comes back to a wall finds the tile where the unit was left.
  function arrive(page, hash) {
    find("side").classList.remove("open");
    find("menu").setAttribute("aria-expanded", "false");
    if (last && page.shown?.(last.unit)) return;
    window.scrollTo(0, scrolled.get(hash) ?? 0);
    if (last) find("main").focus({ preventScroll: true });
  }

  function mark(hash) {
    for (const link of find("side").querySelectorAll("a")) {
      const own = link.getAttribute("href").slice(1);
      const isHere = own === hash || (own && !own.startsWith("/") && hash.startsWith(`${own}/`));
      if (isHere) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  function contents() {
    const { net } = ATLAS;
    const item = (href, text, n) =>
      h(
        "li",
        {},
        h("a", { href }, h("span", { class: "name" }, breakable(text)), n != null && h("span", { class: "n" }, many(n))),
      );
    const hand = net.hand[0];
    replace(
      find("side"),
      h("h2", {}, "Layers"),
      h(
        "ol",
        {},
        item("#", "overview"),
        item("#/depths", "what each depth responds to"),
        net.compare && item("#/changes", "what changed"),
        hidden().map((i) => item(to.layer(i), net.layers[i].name, net.layers[i].shape[0])),
      ),
      h("h2", {}, "Images"),
      h(
        "ol",
        {},
        net.pages.length
          ? item("#/images", "looked at closely", net.pages.length)
          : h("li", { class: "soft" }, net.photos ? "none was looked at closely" : "left out of this atlas"),
        hand &&
          handImages(hand[0]).length > 0 &&
          item(to.hand(hand[0], net.layers[hand[0]].strongest[0] ?? 0), "one convolution by hand"),
      ),
      net.classes.length > 0 && classContents(),
    );
  }

  const ALL = 300; // classes that stand at the side; of more, only those that are asked for

  function classContents() {
    const { classes } = ATLAS.net;
    const order = [...classes.keys()].sort((a, b) => classes[a].localeCompare(classes[b], "en", { numeric: true }));
    const list = h("ol", {});
    const draw = (asked) => {
      const chosen = order.filter((c) => classes[c].toLowerCase().includes(asked)).slice(0, ALL);
      replace(
        list,
        chosen.map((c) => h("li", {}, h("a", { href: to.class(c) }, h("span", { class: "name" }, classLabel(c))))),
      );
      mark(location.hash.slice(1));
    };
    draw("");
    return [
      h("h2", {}, h("a", { href: "#/classes" }, "Classes")),
      classes.length > 20 &&
        h("input", {
          type: "search",
          placeholder: "filter",
          "aria-label": "Filter the classes",
          input: (event) => draw(event.target.value.trim().toLowerCase()),
        }),
      list,
    ];
  }

  function theme() {
    const root = document.documentElement;
    const place = "vizcnn-atlas-theme";
    try {
      const kept = localStorage.getItem(place);
      if (kept === "dark" || kept === "light") root.dataset.theme = kept;
    } catch {
      // a private window keeps nothing
    }
    find("theme").addEventListener("click", () => {
      const dark =
        (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
      root.dataset.theme = dark ? "light" : "dark";
      try {
        localStorage.setItem(place, root.dataset.theme);
      } catch {
        // as above
      }
    });
  }

  function start(network) {
    settle(network);
    ATLAS.notes.read();
    document.documentElement.style.setProperty("--shape", `${network.input[2]} / ${network.input[1]}`);
    document.documentElement.style.setProperty("--shape-number", String(network.input[2] / network.input[1]));
    history.scrollRestoration = "manual";
    contents();
    ATLAS.search.start();
    ATLAS.keys.start();
    find("menu").addEventListener("click", () => {
      find("menu").setAttribute("aria-expanded", String(find("side").classList.toggle("open")));
    });
    find("skip").addEventListener("click", (event) => {
      event.preventDefault();
      find("main").focus();
    });
    addEventListener("scroll", () => scrolled.set(location.hash.slice(1), scrollY), { passive: true });
    addEventListener("hashchange", show);
    show();
  }

  theme();
  ATLAS.load("network").then(start, (error) => {
    append(replace(find("main"), h("h1", {}, "This atlas is not whole")), h("p", {}, `${error.message}.`));
  });
}
