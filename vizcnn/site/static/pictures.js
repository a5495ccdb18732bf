"use strict";
// Pictures: optimised ones, photographs, and parts of photographs. A part is no file: it is the photograph, enlarged and
// moved behind a window, so that what is shown and the box on the whole photograph are the same four numbers.
{
  const { h, fill } = ATLAS.elements;
  const { int8 } = ATLAS.decode;
  const { className, unitName, isPictured, isClassPictured } = ATLAS.places;

  const BLUE = [43, 108, 176];
  const ORANGE = [217, 115, 13];
  const MIDDLE = [243, 241, 234];

  // Blue below zero, orange above: told apart with any common colour blindness. share: from -1 to 1.
  function mix(share) {
    const end = share < 0 ? BLUE : ORANGE;
    const part = Math.min(1, Math.abs(share));
    return MIDDLE.map((middle, i) => Math.round(middle + (end[i] - middle) * part));
  }
  const diverging = (share) => `rgb(${mix(share).join(",")})`;

  const isSmall = () => Math.min(ATLAS.net.input[1], ATLAS.net.input[2]) <= 40;

  function image(file, alt, { eager = false, coarse = isSmall() } = {}) {
    return h("img", {
      src: file,
      alt,
      loading: eager ? null : "lazy",
      decoding: "async",
      class: coarse ? "coarse" : null,
    });
  }

  // Without a picture: a plain tile, which says what it stands for.
  function blank(text, alt = text) {
    return h(
      "div",
      { class: "blank", role: alt ? "img" : null, "aria-label": alt || null, "aria-hidden": alt ? null : "true" },
      text,
    );
  }

  const photo = (n, alt = `Image ${n}`, how = {}) =>
    ATLAS.net.photos ? image(`photo/${n}.webp`, alt, how) : blank(`image ${n}`, alt);

  // What a box of a photograph shows, as large as fits into a square; nothing beside the box is shown.
  function crop(n, box, alt) {
    if (!ATLAS.net.photos) return h("div", { class: "crop" }, blank(`image ${n}`, alt));
    const [, height, width] = ATLAS.net.input;
    const [top, left, bottom, right] = box || [0, 0, height, width];
    const [rows, columns] = [Math.max(1e-6, bottom - top), Math.max(1e-6, right - left)];
    const longest = Math.max(rows, columns);
    const moved = {
      width: `${(width / columns) * 100}%`,
      height: `${(height / rows) * 100}%`,
      left: `${(-left / columns) * 100}%`,
      top: `${(-top / rows) * 100}%`,
    };
    const window = { width: `${(columns / longest) * 100}%`, height: `${(rows / longest) * 100}%` };
    return h(
      "div",
      { class: "crop" },
      h("div", { class: "window", style: window }, fill(photo(n, alt), { style: moved })),
    );
  }

  function frame([top, left, bottom, right]) {
    const [, height, width] = ATLAS.net.input;
    const share = (part, of) => `${(part / of) * 100}%`;
    const style = {
      top: share(top, height),
      left: share(left, width),
      width: share(right - left, width),
      height: share(bottom - top, height),
    };
    return h("div", { class: "box", style });
  }

  // A whole photograph with the box marked.
  function boxed(n, box, alt) {
    return h("div", { class: "shot" }, photo(n, alt), box && ATLAS.net.photos && frame(box));
  }

  // Where a unit sees the whole photograph: a ring around the middle of its field.
  function ringed(n, layer, place, alt) {
    const shot = boxed(n, null, alt);
    if (place && layer.field.size && ATLAS.net.photos) {
      const { size, stride, offset } = layer.field;
      const [top, left] = [0, 1].map((axis) => {
        const middle = offset[axis] + place[axis] * stride[axis] + size[axis] / 2;
        return `${Math.max(4, Math.min(96, (middle / ATLAS.net.input[1 + axis]) * 100))}%`;
      });
      shot.append(h("div", { class: "ring", style: { top, left } }));
    }
    return shot;
  }

  // The picture that stands for a unit everywhere: the optimised one, else the best crop, which comes when it is read.
  function face(i, k, { alt, eager = false } = {}) {
    if (ATLAS.net.layers[i].output) return classFace(k, { alt, eager });
    const name = alt ?? `Unit ${unitName(i, k)}`;
    if (isPictured(i, k))
      return image(`unit/${i}-${k}.webp`, alt ?? `Picture optimised for unit ${unitName(i, k)}`, { eager });
    return bestCrop(`P${i}`, k, name);
  }

  // The crop that excites a unit most. key: of the file that has it.
  function bestCrop(key, k, alt) {
    const show = (faces) => (faces[k] ? crop(faces[k][0], faces[k][3], alt) : blank("–", alt));
    return fromFile(key, show, () => blank(String(k), alt));
  }

  // A piece of a photograph that comes when the file that names it is read; `otherwise` where none can come.
  function fromFile(key, show, otherwise) {
    if (!ATLAS.net.photos) return otherwise();
    const place = h("div", { class: "face" });
    ATLAS.load(key).then(
      (held) => place.append(show(held)),
      () => place.append(otherwise()),
    );
    return place;
  }

  // The picture that stands for a class: the optimised one, else its surest example, which comes when it is read.
  function classFace(c, { alt, eager = false } = {}) {
    if (isClassPictured(c))
      return image(`unit/class-${c}.webp`, alt ?? `Picture optimised for ${className(c)}`, { eager });
    const letters = () => blank(className(c).slice(0, 2), alt ?? className(c));
    const { chunk } = ATLAS.net;
    const show = (rows) => {
      const [first] = rows[c % chunk].examples;
      return first == null ? letters() : crop(first, null, alt ?? `An example of ${className(c)}`);
    };
    return fromFile(`C${Math.floor(c / chunk)}`, show, letters);
  }

  // A kernel as it was packed, [columns, channels, bytes]: in colours of the image where it has three, else in blue and
  // orange.
  function kernel([columns, channels, packed], alt) {
    const values = int8(packed);
    const rows = values.length / columns / channels;
    const canvas = h("canvas", {
      width: columns,
      height: rows,
      class: "coarse",
      role: "img",
      "aria-label": alt || null,
      "aria-hidden": alt ? null : "true",
    });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns, rows);
    for (let p = 0; p < rows * columns; p++) {
      const own = values.subarray(p * channels, (p + 1) * channels);
      const colour = channels === 3 ? [...own].map((v) => 128 + v) : mix(own[0] / 127);
      pixels.data.set([...colour, 255], p * 4);
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  ATLAS.pictures = { mix, diverging, image, blank, photo, crop, frame, boxed, ringed, face, bestCrop, classFace, kernel };
}
