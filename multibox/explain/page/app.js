const $ = (id) => document.getElementById(id);
const { explanation, colors, default_boxes } = JSON.parse($("data").textContent);
const { image, detector, feature_maps: maps, detections, candidates, truth, hard_negatives: stages } = explanation;
const MATCHED = 0.5; // the overlap from which a default box is matched

// All default boxes in pixels of the image, four corners each, in the order of the network's output.
const table = new Float32Array(Uint8Array.from(atob(default_boxes), (letter) => letter.charCodeAt(0)).buffer);
const size = [image.width, image.height, image.width, image.height];
const corners = Float64Array.from(table, (value, place) => value * size[place % 4]);
let first = 0;
for (const map of maps) {
  map.first = first;
  map.shapes = map.box_sizes.length;
  first += map.default_boxes;
  map.cell = [(map.step[1] / detector.input.width) * image.width, (map.step[0] / detector.input.height) * image.height];
}

// Without ground truth, the detections stand in for the objects.
const objects = truth ?? detections.map(({ name, label, box }) => ({ name, label, box }));
const state = {
  tab: "cells",
  map: busiestMap(),
  row: 0,
  column: 0,
  sizes: maps.map(() => 1),
  ratios: maps.map(() => 1),
  object: null,
  detection: 0,
  step: 2,
  stage: Math.max(stages.length - 1, 0),
  lit: null, // the feature map whose hard negatives are shown as boxes
  iou: detector.iou_threshold,
  score: null, // each class has its own
  kept: null,
};

/** The feature map that found or matched most, which is the one to begin with. */
function busiestMap() {
  const counts = maps.map(() => 0);
  for (const one of truth?.flatMap((each) => each.matches) ?? detections.map((each) => each.default_box)) {
    counts[one.feature_map] += 1;
  }
  return counts.indexOf(Math.max(...counts));
}

// Boxes

const boxAt = (index) => Array.from(corners.subarray(4 * index, 4 * index + 4));

/** A default box as the sliders of its map change it: another size, and other aspect ratios at the same area. */
function changed([left, top, right, bottom], map) {
  const [scale, power] = [state.sizes[map], state.ratios[map]];
  if (scale === 1 && power === 1) return [left, top, right, bottom];
  const input = [detector.input.width / image.width, detector.input.height / image.height];
  const stretch = ((((right - left) * input[0]) / ((bottom - top) * input[1])) ** ((power - 1) / 2)) || 1;
  const half = [((right - left) / 2) * scale * stretch, ((bottom - top) / 2) * scale / stretch];
  const center = [(left + right) / 2, (top + bottom) / 2];
  return [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]];
}

function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(one) + area(other) - width * height);
}

/** The best default box of each object, with the sizes and ratios of the sliders. */
function coverage() {
  const best = objects.map(() => ({ overlap: 0, map: null, index: null }));
  maps.forEach((map, number) => {
    for (let index = map.first; index < map.first + map.default_boxes; index += 1) {
      const box = changed(boxAt(index), number);
      objects.forEach((object, place) => {
        const value = overlap(box, object.box);
        if (value > best[place].overlap) best[place] = { overlap: value, map: number, index };
      });
    }
  });
  return best;
}

/** Greedy suppression of the candidates, which are sorted by score. Returns the kept ones with what each suppressed. */
function suppress() {
  const kept = [];
  for (const one of candidates.filter((each) => each.score > (state.score ?? detector.score_thresholds[each.label]))) {
    const rivals = kept.filter((other) => detector.class_agnostic || other.label === one.label);
    const better = rivals.find((other) => overlap(one.box, other.box) > state.iou);
    if (better) better.suppressed.push(one);
    else if (kept.length < detector.max_detections) kept.push({ ...one, suppressed: [] });
  }
  return kept;
}

// Drawing

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

const layer = (name) => shape("g", { class: name }, $("drawn"));

function rectangle(parent, [left, top, right, bottom], color, { dashed = false, width = 2, opacity = 1 } = {}) {
  const place = { x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0) };
  const line = { stroke: color, "stroke-width": width, "stroke-opacity": opacity };
  return shape("rect", { ...place, ...line, ...(dashed ? { "stroke-dasharray": "5 4" } : {}) }, parent);
}

/** A pixel of the screen, in pixels of the image. */
function pixel() {
  return image.width / ($("stage").clientWidth || image.width);
}

/** Writes texts on a color above the upper left corners of boxes; not on a small screen if they would cover it. */
function labels(parent, items) {
  if (items.length > 8 && image.width / pixel() < 480) return;
  const unit = pixel();
  for (const [[left, top], text, color] of items) {
    const letters = shape("text", { fill: inkOn(color), "font-size": 12.5 * unit }, parent);
    letters.textContent = text;
    const [width, height] = [letters.getComputedTextLength() + 8 * unit, 17 * unit];
    const x = Math.max(Math.min(left - unit, image.width - width), 0);
    const y = Math.max(top - height, 0);
    letters.setAttribute("x", x + 4 * unit);
    letters.setAttribute("y", y + 12.5 * unit);
    letters.before(shape("rect", { x, y, width, height, style: `fill: ${color}` }, parent));
  }
}

function inkOn(color) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16));
  return 0.3 * red + 0.6 * green + 0.1 * blue > 110 ? "#000" : "#fff";
}

function drawGrid() {
  const { rows, columns, cell } = maps[state.map];
  const lines = [];
  for (let column = 1; column < columns; column += 1) lines.push(`M${column * cell[0]} 0V${image.height}`);
  for (let row = 1; row < rows; row += 1) lines.push(`M0 ${row * cell[1]}H${image.width}`);
  shape("path", { d: lines.join(""), class: "grid" }, $("drawn"));
}

// Parts of the panel

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const heading = (text, id = "") => make("h2", { id }, text);
const paragraph = (text, className = "") => make("p", { className }, text);
const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
const grid = (map) => `${map.rows}\u00a0×\u00a0${map.columns}`;
const extent = ([left, top, right, bottom]) => `${(right - left).toFixed(0)}\u00a0×\u00a0${(bottom - top).toFixed(0)}`;
const signed = (value, digits = 2) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

function swatch(color) {
  const square = make("span", { className: "swatch" });
  square.style.background = color;
  return square;
}

function rows(head, lines) {
  const top = make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)));
  const body = lines.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, ...[cell].flat()))));
  return make("table", {}, make("thead", {}, top), make("tbody", {}, ...body));
}

/** A slider that keeps the focus when the panel is made anew. */
function slider(id, text, value, [min, max, step], shown, change) {
  const input = make("input", { type: "range", id, min, max, step });
  input.value = value;
  input.oninput = () => update(() => change(Number(input.value)));
  input.setAttribute("aria-valuetext", shown);
  return make("div", { className: "slider" }, make("label", { htmlFor: id }, text), make("output", {}, shown), input);
}

function choice(id, pressed, content, choose) {
  const button = make("button", { type: "button", id, onclick: () => update(choose) }, ...[content].flat());
  button.setAttribute("aria-pressed", pressed);
  return button;
}

function mapChoices() {
  const buttons = maps.map((map, number) => {
    const icon = document.createElementNS(SVG, "svg");
    icon.setAttribute("viewBox", "-1 -1 40 40");
    icon.setAttribute("aria-hidden", "true");
    const [across, down] = [38 / map.columns, 38 / map.rows];
    const lines = Array.from({ length: map.columns + 1 }, (_, place) => `M${place * across} 0V38`);
    lines.push(...Array.from({ length: map.rows + 1 }, (_, place) => `M0 ${place * down}H38`));
    shape("path", { d: lines.join(""), "stroke-width": Math.min(1, across / 4) }, icon);
    return choice(`map-${number}`, state.map === number, [icon, grid(map)], () => chooseMap(number));
  });
  return make("div", { className: "choices", role: "group", ariaLabel: "Feature map" }, ...buttons);
}

function chooseMap(number) {
  const [before, map] = [maps[state.map], maps[number]];
  state.row = Math.min(Math.floor(((state.row + 0.5) * map.rows) / before.rows), map.rows - 1);
  state.column = Math.min(Math.floor(((state.column + 0.5) * map.columns) / before.columns), map.columns - 1);
  state.map = number;
}

const coverColor = (value) => (value >= MATCHED ? "#5fd67a" : value > 0 ? "#ffc14d" : "#ff7b70");
const coverClass = (value) => (value >= MATCHED ? "good" : value > 0 ? "weak" : "bad");
/** The name of weights without their folders. */
const shortName = (model) => (/\.\w+$/.test(model) ? model.split(/[\\/]/).at(-1) : model);
const mapName = (number) => [swatch(colors[number % colors.length]), grid(maps[number])];

// What can be looked at: each draws on the image, and returns the content of the panel

const views = {
  cells: {
    title: "Default boxes",
    show() {
      const [map, best] = [maps[state.map], coverage()];
      drawGrid();
      const [x, y] = [state.column * map.cell[0], state.row * map.cell[1]];
      shape("rect", { x, y, width: map.cell[0], height: map.cell[1], class: "cell" }, layer("boxes"));
      const boxes = layer("boxes");
      best.forEach(({ overlap: value }, place) => {
        rectangle(boxes, objects[place].box, coverColor(value), { width: 3 });
      });
      labels(boxes, best.map(({ overlap: value }, place) => [objects[place].box, value.toFixed(3), coverColor(value)]));
      const start = map.first + (state.row * map.columns + state.column) * map.shapes;
      const lines = Array.from({ length: map.shapes }, (_, place) => {
        const [box, color] = [changed(boxAt(start + place), state.map), colors[place % colors.length]];
        rectangle(boxes, box, color, { dashed: true });
        const value = Math.max(0, ...objects.map((object) => overlap(box, object.box)));
        return [[swatch(color), extent(box)], make("span", { className: coverClass(value) }, value.toFixed(3))];
      });
      const covered = best.filter((each) => each.overlap >= MATCHED).length;
      const mean = best.reduce((sum, each) => sum + each.overlap, 0) / best.length;
      document.body.dataset.coverage = JSON.stringify(best); // for tests
      const kind = truth ? "object" : "detection";
      const ratios = map.box_sizes.map(([width, height]) => (width / height) ** state.ratios[state.map]);
      const shownRatios = [...new Set(ratios.map((each) => (each < 0.99 ? `1:${(1 / each).toFixed(1)}` : `${each.toFixed(1)}:1`)))];
      const isChanged = state.sizes[state.map] !== 1 || state.ratios[state.map] !== 1;
      return [
        heading(`Feature map ${map.layer}: ${grid(map)} cells`),
        mapChoices(),
        heading(`Row ${state.row + 1}, column ${state.column + 1}: ${plural(map.shapes, "default box", "default boxes")}`, "cell"),
        rows(["width × height in pixels", `best overlap with an ${kind}`.replace("an d", "a d")], lines),
        heading("Other sizes and ratios on this map"),
        slider("size", "Size", Math.log2(state.sizes[state.map]), [-1.5, 1.5, 0.05], `× ${state.sizes[state.map].toFixed(2)}`,
          (value) => (state.sizes[state.map] = 2 ** value)),
        slider("ratio", "Aspect ratios", state.ratios[state.map], [0, 2, 0.05], shownRatios.join(", "),
          (value) => (state.ratios[state.map] = value)),
        paragraph(best.length
          ? `${covered} of ${plural(best.length, kind)} ${covered === 1 ? "has" : "have"} a default box with an overlap of at least ${MATCHED}; the mean of the best overlaps is ${mean.toFixed(3)}.`
          : `There are no ${kind}s to cover.`),
        ...(isChanged ? [choice("reset", false, "As the detector has them", () => {
          state.sizes[state.map] = state.ratios[state.map] = 1;
        })] : []),
        paragraph(truth
          ? "Green objects are covered by at least 0.5. Yellow ones are matched only because each object gets the default box that is best for it."
          : "The objects are not known (--truth, --data), so the detections stand in for them.", "quiet"),
      ];
    },
  },

  matches: {
    title: "Matches",
    missing: truth ? null : "The objects are not known. Run the command again with --truth FILE or --data DATA to see which default boxes they match.",
    show() {
      const boxes = layer("boxes");
      const shown = truth.filter((_, place) => state.object === null || state.object === place);
      for (const one of shown) {
        for (const match of one.matches) rectangle(boxes, match.box, colors[match.feature_map % colors.length], { dashed: true });
      }
      truth.forEach((one) => {
        rectangle(boxes, one.box, "#ffffff", { width: 3, opacity: shown.includes(one) ? 1 : 0.35 });
      });
      labels(boxes, shown.map((one) => [one.box, `${truth.indexOf(one) + 1} ${one.name}`, "#ffffff"]));
      const all = shown.flatMap((one) => one.matches);
      const lines = maps.map((map, number) => {
        const here = all.filter((match) => match.feature_map === number).map((match) => match.overlap);
        const range = here.length ? `${Math.min(...here).toFixed(2)} to ${Math.max(...here).toFixed(2)}` : "";
        return [mapName(number), String(here.length), range];
      });
      const forced = all.filter((match) => match.rule === "own" && match.overlap < MATCHED).length;
      const buttons = truth.map((one, place) =>
        choice(`object-${place}`, state.object === place, [swatch(colors[one.label]), `${place + 1} ${one.name}, ${plural(one.matches.length, "match", "matches")}`], () => (state.object = state.object === place ? null : place)));
      return [
        heading(`${plural(truth.length, "object")}, ${plural(all.length, "matched default box", "matched default boxes")}`),
        make("div", { className: "choices wide", role: "group", ariaLabel: "Object" }, ...buttons),
        heading("On each feature map"),
        rows(["map", "matches", "overlaps"], lines),
        paragraph(forced
          ? `${plural(forced, "match has", "matches have")} an overlap below ${MATCHED}: an object gets the default box that is best for it, however small their overlap is.`
          : `Each match has an overlap of at least ${MATCHED}.`),
        paragraph("These are the default boxes that learn the object in training: its class, and the offsets to its box. All others learn the background, if they are mined.", "quiet"),
      ];
    },
  },

  negatives: {
    title: "Hard negatives",
    missing: stages.length ? null : truth
      ? "This file gives boxes, not the network's raw outputs with a softmax, which the loss needs. Explain the .safetensors file."
      : "The objects are not known. Run the command again with --truth FILE or --data DATA to see which default boxes the loss would take as negatives.",
    show() {
      const stage = stages[state.stage];
      const boxes = layer("boxes");
      const worst = Math.max(...stages.flatMap((each) => each.default_boxes.map(({ loss }) => loss)), 1e-6);
      for (const one of truth) rectangle(boxes, one.box, "#5fd67a", { width: 3 });
      for (const one of [...stage.default_boxes].reverse()) {
        const opacity = 0.3 + 0.7 * (one.loss / worst);
        const [left, top, right, bottom] = one.box;
        const lamp = { cx: (left + right) / 2, cy: (top + bottom) / 2, r: (2 + 5 * (one.loss / worst)) * pixel() };
        if (one.feature_map === state.lit) rectangle(boxes, one.box, "#ff9a3d", { width: 1.5, opacity });
        if (state.lit === null || one.feature_map === state.lit) {
          shape("circle", { ...lamp, fill: "#ff9a3d", "fill-opacity": opacity }, boxes);
        }
      }
      document.body.dataset.lit = JSON.stringify(stage.default_boxes.map((each) => each.index)); // for tests
      const lines = maps.map((map, number) => {
        const here = stage.default_boxes.filter((each) => each.feature_map === number);
        const button = choice(`lit-${number}`, state.lit === number, grid(map), () => (state.lit = state.lit === number ? null : number));
        return [button, String(here.length), here.length ? here[0].loss.toFixed(2) : ""];
      });
      const several = stages.length > 1 ? [
        slider("weights", "Weights", state.stage, [0, stages.length - 1, 1], `${state.stage + 1} of ${stages.length}`, (value) => (state.stage = value)),
        rows(["weights", "box loss", "class loss"], stages.map((each) => [shortName(each.model), each.localization_loss.toFixed(2), each.confidence_loss.toFixed(2)])),
      ] : [];
      several[1]?.tBodies[0].rows[state.stage].classList.add("chosen");
      return [
        heading(`${plural(stage.default_boxes.length, "hard negative")} for ${plural(stage.matches, "match", "matches")}`),
        paragraph(shortName(stage.model)),
        ...several,
        heading("On each feature map"),
        rows(["map", "hard negatives", "largest loss"], lines),
        paragraph(`Box loss ${stage.localization_loss.toFixed(3)}, class loss ${stage.confidence_loss.toFixed(3)}, for this image without augmentation.`),
        paragraph("Lit in orange are the centers of the unmatched default boxes that the network takes least for background, three for each match. The larger and brighter, the larger their loss. Choose a map to see its boxes.", "quiet"),
      ];
    },
  },

  offsets: {
    title: "Offsets",
    missing: !detections.length ? "Nothing was found. A lower --score shows boxes that score less."
      : detections[0].offsets ? null : "This file gives boxes, not the network's offsets. Explain the .safetensors file, or one exported with --raw.",
    show() {
      const one = detections[state.detection];
      const place = one.default_box;
      const [from, to] = [one.steps[Math.floor(state.step)], one.steps[Math.min(Math.floor(state.step) + 1, 2)]];
      const part = state.step % 1;
      const box = from.map((value, side) => value + (to[side] - value) * part);
      const map = maps[place.feature_map];
      const boxes = layer("boxes");
      const cell = { x: place.column * map.cell[0], y: place.row * map.cell[1], width: map.cell[0], height: map.cell[1] };
      shape("rect", { ...cell, class: "cell" }, boxes);
      rectangle(boxes, one.steps[0], "#fff", { dashed: true });
      const centers = one.steps.slice(0, 2).map((each) => [(each[0] + each[2]) / 2, (each[1] + each[3]) / 2]);
      const [[x1, y1], [x2, y2]] = centers;
      shape("line", { x1, y1, x2, y2, stroke: "#fff", "stroke-width": 2 }, boxes);
      rectangle(boxes, box, colors[one.label], { width: 3 });
      labels(boxes, [[box, `${one.name} ${one.score_after.toFixed(2)}`, colors[one.label]]]);
      const extents = one.steps.map((each) => [each[2] - each[0], each[3] - each[1]]);
      const effects = [
        `center ${signed(x2 - x1, 1)} pixels across`, `center ${signed(y2 - y1, 1)} pixels down`,
        `${(extents[2][0] / extents[1][0]).toFixed(2)} × as wide`, `${(extents[2][1] / extents[1][1]).toFixed(2)} × as high`,
      ];
      const names = ["Δcx", "Δcy", "Δw", "Δh"];
      const said = ["the default box", "moved by two offsets", "resized by the other two: the box"];
      return [
        heading(plural(detections.length, "detection")),
        detectionChoices(),
        slider("step", "Step", state.step, [0, 2, 0.05], said[Math.round(state.step)], (value) => (state.step = value)),
        heading("Offsets"),
        rows(["", "network", "effect"], names.map((name, number) => [name, signed(one.offsets[number]), effects[number]])),
        heading("Default box"),
        rows(["map", "cell", "width × height"], [[[`${map.layer}, ${grid(map)}`], `row ${place.row + 1}, column ${place.column + 1}`, extent(place.box)]]),
        paragraph(`It is number ${place.shape + 1} of ${map.shapes} in its cell. Its index is ${place.index}: the first of all ${first} default boxes has 0.`),
        paragraph(`Offsets are divided by the variances ${detector.center_variance} and ${detector.size_variance} in training, and multiplied by them here.`, "quiet"),
      ];
    },
  },

  suppression: {
    title: "Suppression",
    missing: candidates ? null : "Suppression is inside this file, which does not say what was suppressed. Explain the .safetensors file, or one exported with --raw.",
    show() {
      const kept = suppress();
      const boxes = layer("boxes");
      const chosen = kept.filter((_, place) => state.kept === null || state.kept === place);
      for (const one of chosen) {
        for (const other of one.suppressed) rectangle(boxes, other.box, colors[other.label], { dashed: true, width: 1 });
      }
      for (const one of kept) rectangle(boxes, one.box, colors[one.label], { width: 3, opacity: chosen.includes(one) ? 1 : 0.35 });
      labels(boxes, chosen.map((one) => [one.box, `${detector.class_names[one.label]} ${one.score.toFixed(2)}`, colors[one.label]]));
      const suppressed = kept.reduce((sum, each) => sum + each.suppressed.length, 0);
      document.body.dataset.kept = JSON.stringify(kept.map(({ default_box, label: own, suppressed: others }) => [default_box, own, others.length])); // for tests
      const buttons = kept.map((one, place) =>
        choice(`kept-${place}`, state.kept === place, [swatch(colors[one.label]), `${detector.class_names[one.label]} ${one.score.toFixed(2)}, suppressed ${one.suppressed.length}`], () => (state.kept = state.kept === place ? null : place)));
      const low = Math.min(...detector.score_thresholds);
      return [
        heading(`${plural(kept.length, "box", "boxes")} kept, ${suppressed} suppressed`),
        slider("iou", "Suppress at an overlap above", state.iou, [0, 1, 0.01], state.iou.toFixed(2), (value) => ((state.iou = value), (state.kept = null))),
        slider("score", "Score above", state.score ?? low, [detector.lowest_score, 1, 0.01], state.score === null ? "each class's own" : state.score.toFixed(2), (value) => ((state.score = value), (state.kept = null))),
        ...(state.iou !== detector.iou_threshold || state.score !== null ? [choice("own", false, "As the detector has them", () => {
          Object.assign(state, { iou: detector.iou_threshold, score: null, kept: null });
        })] : []),
        heading("Kept, by score"),
        make("div", { className: "choices wide", role: "group", ariaLabel: "Kept box" }, ...buttons),
        paragraph(`Boxes are visited by score. Each is kept unless it overlaps a kept one ${detector.class_agnostic ? "" : "of its class "}by more than the threshold. A score never changes: a suppressed box has none any more.`, "quiet"),
      ];
    },
  },
};

function detectionChoices() {
  const buttons = detections.map((one, place) =>
    choice(`detection-${place}`, state.detection === place, [swatch(colors[one.label]), `${one.name} ${one.score_after.toFixed(2)}`], () => (state.detection = place)));
  return make("div", { className: "choices wide", role: "group", ariaLabel: "Detection" }, ...buttons);
}

// The page

function update(change) {
  change();
  render();
}

function open(name) {
  update(() => (state.tab = name));
  $(`tab-${name}`).scrollIntoView({ block: "nearest", inline: "center" });
}

function render() {
  const focused = document.activeElement?.id;
  const scrolled = document.querySelector(".choices.wide")?.scrollTop ?? 0;
  const view = views[state.tab];
  $("drawn").replaceChildren();
  $("panel").replaceChildren(...(view.missing ? [paragraph(view.missing)] : view.show()));
  $("panel").setAttribute("aria-labelledby", `tab-${state.tab}`);
  for (const name of Object.keys(views)) {
    $(`tab-${name}`).setAttribute("aria-selected", name === state.tab);
    $(`tab-${name}`).tabIndex = name === state.tab ? 0 : -1;
  }
  $("keys").hidden = state.tab !== "cells";
  const list = document.querySelector(".choices.wide");
  if (list) list.scrollTop = scrolled;
  if (focused && document.activeElement?.id !== focused) $(focused)?.focus({ preventScroll: true });
  document.body.dataset.tab = state.tab;
}

function moveTo(event) {
  if (state.tab !== "cells") return;
  const { left, top, width, height } = $("stage").getBoundingClientRect();
  const map = maps[state.map];
  const [x, y] = [((event.clientX - left) / width) * image.width, ((event.clientY - top) / height) * image.height];
  const column = Math.min(Math.max(Math.floor(x / map.cell[0]), 0), map.columns - 1);
  const row = Math.min(Math.max(Math.floor(y / map.cell[1]), 0), map.rows - 1);
  if (row !== state.row || column !== state.column) update(() => Object.assign(state, { row, column }));
}

function keyOnStage(event) {
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const map = maps[state.map];
  if (event.key in steps && state.tab === "cells") {
    const [down, across] = steps[event.key];
    event.preventDefault();
    update(() => {
      state.row = Math.min(Math.max(state.row + down, 0), map.rows - 1);
      state.column = Math.min(Math.max(state.column + across, 0), map.columns - 1);
    });
    $("said").textContent = $("cell").textContent;
  }
  if (maps[Number(event.key) - 1] && state.tab === "cells") update(() => chooseMap(Number(event.key) - 1));
}

function keyOnTabs(event) {
  const names = Object.keys(views);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  open(names[(names.indexOf(state.tab) + step + names.length) % names.length]);
  $(`tab-${state.tab}`).focus();
}

for (const [name, { title }] of Object.entries(views)) {
  const tab = make("button", { type: "button", id: `tab-${name}`, onclick: () => open(name) }, title);
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", "panel");
  $("tabs").append(tab);
}
$("tabs").addEventListener("keydown", keyOnTabs);
$("stage").addEventListener("pointermove", moveTo);
$("stage").addEventListener("pointerdown", moveTo);
$("stage").addEventListener("keydown", keyOnStage);
addEventListener("resize", render);
$("about").textContent =
  `${explanation.model}: ${detector.name}, ${first.toLocaleString("en")} default boxes on ${plural(maps.length, "feature map")}, ` +
  `input ${detector.input.height} × ${detector.input.width}; the image is ${image.width} × ${image.height} pixels.`;
const example = (truth?.flatMap((each) => each.matches) ?? detections.map((each) => each.default_box))
  .filter((each) => each.feature_map === state.map)
  .sort((one, other) => (other.overlap ?? 0) - (one.overlap ?? 0))[0];
state.row = example?.row ?? Math.floor(maps[state.map].rows / 2);
state.column = example?.column ?? Math.floor(maps[state.map].columns / 2);
render();
