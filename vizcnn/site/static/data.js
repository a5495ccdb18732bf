"use strict";
// The one name that all scripts share, and the files of numbers. From a folder a page can load scripts but not fetch,
// so each data file is a script that hands over one value.
globalThis.ATLAS = { pages: {} };
{
  const kept = new Map();
  const waiting = new Map();

  function put(key, value) {
    kept.set(key, value);
  }

  function load(key) {
    if (kept.has(key)) return Promise.resolve(kept.get(key));
    if (!waiting.has(key)) waiting.set(key, loadScript(key));
    return waiting.get(key);
  }

  function loadScript(key) {
    return new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = `data/${key}.js`;
      script.onload = () => {
        script.remove();
        if (kept.has(key)) done(kept.get(key));
        else fail(new Error(`data/${key}.js is damaged`));
      };
      script.onerror = () => {
        script.remove();
        waiting.delete(key);
        fail(new Error(`data/${key}.js is missing`));
      };
      document.head.append(script);
    });
  }

  // A value that is made once from each object, and forgotten together with it.
  function memo(make) {
    const made = new WeakMap();
    return (from) => {
      if (!made.has(from)) made.set(from, make(from));
      return made.get(from);
    };
  }

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const int8 = (text) => new Int8Array(bytes(text).buffer);
  const uint16 = (text) => new Uint16Array(bytes(text).buffer);
  const int32 = (text) => new Int32Array(bytes(text).buffer);
  const float32 = (text) => new Float32Array(bytes(text).buffer);

  function float16(text) {
    return Float32Array.from(uint16(text), (bits) => {
      const exponent = (bits >> 10) & 31;
      const fraction = bits & 1023;
      const sign = bits & 0x8000 ? -1 : 1;
      if (exponent === 0) return sign * fraction * 2 ** -24;
      if (exponent === 31) return fraction ? NaN : sign * Infinity;
      return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
    });
  }

  // What packing.pack_halves has packed: {shape, half, values}.
  const floats = memo((packed) => (packed.half ? float16 : float32)(packed.values));

  Object.assign(ATLAS, { put, load, memo });
  ATLAS.decode = { bytes, int8, uint16, int32, float32, float16, floats };
}
