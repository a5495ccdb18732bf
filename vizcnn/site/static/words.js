"use strict";
// Numbers as people read them.
{
  const MINUS = "−";

  function number(x, digits = 3) {
    if (x == null || Number.isNaN(x)) return "–";
    if (x === 0) return "0";
    const size = Math.abs(x);
    const text = size >= 1e5 || size < 1e-3 ? x.toExponential(1) : String(Number(x.toPrecision(digits)));
    return text.replace(/-/g, MINUS);
  }

  function percent(share, digits = 0) {
    if (share == null || Number.isNaN(share)) return "–";
    const least = 10 ** -digits;
    if (share > 0 && share * 100 < least / 2) return `<${least}%`;
    if (share < 1 && (share * 100).toFixed(digits) === (100).toFixed(digits))
      return `>${(100 - least).toFixed(digits)}%`;
    return `${(share * 100).toFixed(digits)}%`;
  }

  const many = (n) => n.toLocaleString("en");
  const count = (n, one, more = `${one}s`) => `${many(n)} ${n === 1 ? one : more}`;
  const signed = (x, digits) => (x > 0 ? "+" : "") + number(x, digits);
  const times = (x) => `${number(x, 2)}×`;
  const size = (shape) => shape.map((n) => number(n, 4)).join(" × ");

  ATLAS.words = { number, percent, many, count, signed, times, size };
}
