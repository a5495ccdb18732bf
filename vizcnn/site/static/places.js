"use strict";
// The network of the overview, and where its pages are. Links are hashes of the one page:
//   #/depths  #LAYER  #LAYER/UNIT  #/class/C  #/classes  #/image/N  #/images  #/by-hand/LAYER/UNIT/IMAGE/ROW,COLUMN
// The leading slash keeps a layer that is called `class` apart.
{
  const { bytes } = ATLAS.decode;
  let net = null;
  let numbers = new Map();

  function settle(network) {
    net = network;
    numbers = new Map(net.layers.map((layer, i) => [layer.name, i]));
    ATLAS.net = net;
  }

  const layerNumber = (name) => numbers.get(name) ?? -1;
  const outputs = () => net.layers.findIndex((layer) => layer.output); // -1 for none
  const hidden = () => net.layers.map((layer, i) => i).filter((i) => !net.layers[i].output);

  const escape = (text) => encodeURIComponent(text).replace(/%20/g, "+");
  function unescape(text) {
    try {
      return decodeURIComponent(text.replace(/\+/g, "%20"));
    } catch {
      return text;
    }
  }

  const to = {
    layer: (i) => (net.layers[i].output ? "#/classes" : `#${escape(net.layers[i].name)}`),
    unit: (i, k) => (net.layers[i].output ? `#/class/${k}` : `#${escape(net.layers[i].name)}/${k}`),
    class: (c) => `#/class/${c}`,
    image: (n) => `#/image/${n}`,
    hand: (i, k, n, place) =>
      `#/by-hand/${escape(net.layers[i].name)}/${k}` +
      (n == null ? "" : `/${n}`) +
      (place ? `/${place.join(",")}` : ""),
  };

  const className = (c) => (c < 0 || c == null ? "no label" : (net.classes[c] ?? `class ${c}`));
  // A class that is called `5` must not be read as a value.
  const classLabel = (c) => (/^[-\d\s.,]+$/.test(className(c)) ? `“${className(c)}”` : className(c));
  const unitName = (i, k) => (net.layers[i].output ? classLabel(k) : `${net.layers[i].name}/${k}`);
  const colours = () => (net.input[0] === 3 ? ["red", "green", "blue"] : net.input[0] === 1 ? ["grey"] : null);
  const channelName = (c) => `the image’s ${colours()?.[c] ?? `channel ${c}`}`;

  // How people call what leads into a layer: "3×3 conv, norm, + shortcut, ReLU".
  const ACTIVATIONS = {
    "": "",
    relu: "ReLU",
    relu6: "ReLU6",
    "leaky relu": "leaky ReLU",
    silu: "SiLU",
    gelu: "GELU",
    hardswish: "hard swish",
    sigmoid: "sigmoid",
    tanh: "tanh",
    other: "activation",
  };
  const activationName = (layer) => ACTIVATIONS[layer.activation] ?? layer.activation;

  function making(layer) {
    const [main, ...others] = layer.paths;
    if (!main) return activationName(layer);
    const kind = main.kernel
      ? `${main.kernel.join("×")} ${main.groups > 1 ? "grouped conv" : "conv"}`
      : main.weights
        ? "dense"
        : "sum";
    const [joined, sums] = [others.filter((path) => path.joined).length, others.filter((path) => !path.joined).length];
    const beside = joined > 0 && `${joined + 1} layers joined`;
    const added = sums > 1 ? `+ ${sums} paths` : sums ? "+ shortcut" : "";
    return [kind, beside, main.norm && "norm", added, activationName(layer)].filter(Boolean).join(", ");
  }

  const isSum = (layer) => layer.paths.slice(1).some((path) => !path.joined);

  const hasBit = (flags, k) =>
    typeof flags === "string" ? Boolean((bits(flags)[k >> 3] >> (7 - (k & 7))) & 1) : flags;
  const unpacked = new Map();
  function bits(text) {
    if (!unpacked.has(text)) unpacked.set(text, bytes(text));
    return unpacked.get(text);
  }
  const isPictured = (i, k) => hasBit(net.layers[i].pictured, k);
  const isClassPictured = (c) => hasBit(net.classPictures, c);
  const arePictured = (i) => net.layers[i].pictured !== false;

  const handImages = (i) => net.hand.find(([layer]) => layer === i)?.[1] ?? [];

  // What of the input the unit at a row and column sees, [top, left, bottom, right]; sides: of the layer's wall.
  const seenFrom = (sides, y, x) => sides && [sides[0][y], sides[2][x], sides[1][y], sides[3][x]];
  const isWhole = (box) => !box || (box[0] <= 0 && box[1] <= 0 && box[2] >= net.input[1] && box[3] >= net.input[2]);

  ATLAS.places = {
    settle,
    to,
    unescape,
    layerNumber,
    outputs,
    hidden,
    className,
    classLabel,
    unitName,
    channelName,
    activationName,
    making,
    isSum,
    hasBit,
    isPictured,
    isClassPictured,
    arePictured,
    handImages,
    seenFrom,
    isWhole,
  };
}
