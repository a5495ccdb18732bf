"use strict";
// Elements. What comes from data is set as text or as the value of an attribute, never as markup.
{
  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value == null || value === false) continue;
      if (typeof value === "function") element.addEventListener(name, value);
      else if (name === "style")
        for (const [property, what] of Object.entries(value)) element.style.setProperty(property, what);
      else element.setAttribute(name, value === true ? "" : value);
    }
    append(element, children);
    return element;
  }

  // Children may be nested lists; null and false are left out, so that `condition && element` can stand among them.
  function append(element, children) {
    for (const child of [children].flat(Infinity)) if (child != null && child !== false) element.append(child);
  }

  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  function replace(element, ...children) {
    element.replaceChildren();
    append(element, children);
    return element;
  }

  // Buttons of which one is pressed. choices: [value, text]; choose is told the value.
  function choice(label, choices, chosen, choose) {
    const group = h("div", { class: "choice", role: "group", "aria-label": label });
    const press = (value) => {
      for (const button of group.children) button.setAttribute("aria-pressed", String(button.value === String(value)));
    };
    for (const [value, text] of choices) {
      const click = () => {
        press(value);
        choose(value);
      };
      group.append(h("button", { type: "button", value: String(value), click }, text));
    }
    press(chosen);
    return group;
  }

  function card(title, ...children) {
    return h("section", { class: "card" }, title && h("h2", {}, title), children);
  }

  // A name that breaks behind its dots and underscores where it has to.
  const breakable = (name) => name.split(/(?<=[._])/).map((part) => [part, h("wbr")]);

  // What stands where a number is missing, and why.
  const missing = (value, what = "Not measured.") => h("p", { class: "why" }, `${what} ${value.missing}`);
  const isMissing = (value) => value == null || (typeof value === "object" && "missing" in value);

  ATLAS.elements = { h, svg, fill, replace, choice, card, breakable, missing, isMissing };
}
