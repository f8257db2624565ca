// The page of a report. It draws everything from the JSON in the page; html.py writes that.

const DATA = JSON.parse(document.getElementById("data").textContent);
const PAGE = 24;                                                  // images that a gallery shows at a time
const MANY = 10;                                                  // more classes than this have no curve until chosen
const MOST_COLUMNS = 30;                                          // classes in the confusion matrix

// ---- elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") made.style.cssText = value;
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter(child => child != null));
  return made;
}

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.flat(Infinity).filter(child => child != null));
  return made;
}

function table(head, rows, kind = "") {
  const line = (cell, cells) => element("tr", {}, cells.map(each =>
    each instanceof Element && each.matches("td, th") ? each : element(cell, {}, each)));
  return element("div", { class: "scroll", tabindex: "0" }, element("table", { class: kind },
    element("thead", {}, line("th", head)), element("tbody", {}, rows.map(cells => line("td", cells)))));
}

const percent = fraction => fraction == null || Number.isNaN(fraction) ? "-" : (100 * fraction).toFixed(1);
const points = difference => {
  const text = (100 * difference).toFixed(1);
  return Number(text) === 0 ? "0.0" : Number(text) > 0 ? `+${text}` : text;
};
const twoDigits = value => value == null ? "-" : value.toFixed(2);
const counted = (number, thing) => `${number} ${thing}${number === 1 ? "" : thing.endsWith("s") ? "es" : "s"}`;
const part = share => element("span", { class: "part", "aria-hidden": "true" },
  element("i", { style: `width:${Math.max(0, Math.min(1, share)) * 100}%` }));

/** Returns a number that opens the images behind it. An entry is {image, object, detection}, -1 for none. */
function count(entries, title) {
  if (!entries.length) return "0";
  return element("button", { class: "count", type: "button", title: "show the images",
    onclick: () => openGallery(title, entries) }, String(entries.length));
}

function section(id, title, note, ...children) {
  return element("section", { id }, element("h2", {}, title), note && element("p", { class: "note" }, note), children);
}

/** Returns a part of the page that is made anew for each threshold. */
const follows = [];
function following(make) {
  const place = element("div");
  follows.push(state => place.replaceChildren(...[make(state)].flat(Infinity)));
  return place;
}

/** Returns a text whose parts between backticks, and flags with their numbers, are code. */
const words = text => text.split(/(`[^`]+`|--[a-z][\w-]*(?: \d[\d.x]*\d)?)/).map((each, index) =>
  index % 2 ? element("code", { class: each.startsWith("--") && "flag" }, each.replaceAll("`", "")) : each);

// ---- what is counted at a threshold

/** Returns all counts at a threshold, each as the list of its entries. */
function countAt(threshold) {
  const size = DATA.classes.length + 1;
  const lists = number => Array.from({ length: number }, () => []);
  const state = {
    threshold, errors: DATA.images.map(image => judge(image, threshold)),
    matrix: Array.from({ length: size }, () => lists(size)),
    falseKinds: {}, missedKinds: {},
    classes: DATA.classes.map(() => ({ objects: 0, found: [], missed: [], false: [] })),
    slices: DATA.slices.map(slice => slice.names.map(() => ({ found: [], missed: [], false: [] }))),
  };
  for (const kind of Object.keys(DATA.kinds.false)) state.falseKinds[kind] = [];
  for (const kind of Object.keys(DATA.kinds.missed)) state.missedKinds[kind] = [];
  state.errors.forEach((errors, number) => {
    const image = DATA.images[number];
    const at = index => (index === NONE ? size - 1 : index);
    for (const [object, detection, objectIndex, detectionIndex] of errors.confusions)
      state.matrix[at(object)][at(detection)].push({ image: number, object: objectIndex, detection: detectionIndex });
    const add = (list, entry, label, groups) => {
      state.classes[label][list].push(entry);
      let own = 0, whole = 0;
      DATA.slices.forEach((slice, place) => {
        const group = slice.byImage ? image.groups[whole++] : groups[own++];
        if (group !== NONE) state.slices[place][group][list].push(entry);
      });
    };
    errors.found.forEach((each, index) => {
      if (each.match === RIGHT) {
        const [label, , , , , , , groups] = image.objects[each.object];
        add("found", { image: number, object: each.object, detection: index }, label, groups);
      }
    });
    for (const { object, kind } of errors.missed) {
      const entry = { image: number, object, detection: NONE, kind };
      state.missedKinds[kind].push(entry);
      add("missed", entry, image.objects[object][0], image.objects[object][7]);
    }
    for (const { detection, kind } of errors.false) {
      const entry = { image: number, object: NONE, detection, kind };
      state.falseKinds[kind].push(entry);
      add("false", entry, image.found[detection][0], image.found[detection][9]);
    }
    for (const [label, counts] of image.objects) if (counts) state.classes[label].objects += 1;
  });
  const all = list => state.classes.flatMap(each => each[list]);
  state.all = { objects: state.classes.reduce((sum, each) => sum + each.objects, 0),
    found: all("found"), missed: all("missed"), false: all("false") };
  return state;
}

function rates({ objects, found, false: wrong }) {
  const right = found.length, detections = right + wrong.length;
  return {
    precision: detections ? right / detections : null, recall: objects ? right / objects : null,
    f1: objects ? 2 * right / Math.max(1, objects + detections) : null,
  };
}

// ---- galleries

function shot(number, entries, state) {
  const image = DATA.images[number], errors = state.errors[number];
  const strong = { object: new Set(entries.map(each => each.object)), detection: new Set(entries.map(each => each.detection)) };
  const missed = new Map(errors.missed.map(each => [each.object, each.kind]));
  const wrong = new Map(errors.false.map(each => [each.detection, each.kind]));
  const letters = Math.max(image.width, image.height) / 40;
  const boxes = [], texts = [], said = [];
  const draw = (corners, kind, isStrong, words) => {
    const [left, top, right, bottom] = corners;
    const box = drawing("rect", { x: left, y: top, width: Math.max(right - left, 1), height: Math.max(bottom - top, 1),
      class: kind + (isStrong ? " strong" : "") }, drawing("title", {}, words));
    boxes.push([isStrong, box]);
    if (!isStrong) return;
    said.push(words);
    const y = top > letters * 1.3 ? top - letters * .35 : Math.min(bottom + letters, image.height - letters * .2);
    const isRight = left + right > image.width * 1.2;               // the text then ends where the box does
    texts.push(drawing("text", { x: isRight ? right : left, y, "text-anchor": isRight ? "end" : "start",
      "font-size": letters, "stroke-width": letters / 5 }, words.replace(/^(missed|false|found) /, "")));
  };
  errors.found.forEach((each, index) => {
    const name = `${DATA.classes[each.label]} ${twoDigits(each.score)}`;
    const corners = image.found[index].slice(4, 8);
    if (wrong.has(index)) draw(corners, "false", strong.detection.has(index), `false ${name}: ${wrong.get(index)}`);
    else if (each.match === RIGHT) draw(corners, "right", strong.detection.has(index), `found ${name}`);
  });
  for (const [index, kind] of missed) {
    const [label, , , ...rest] = image.objects[index];
    draw(rest.slice(0, 4), "missed", strong.object.has(index), `missed ${DATA.classes[label]}: ${kind}`);
  }
  boxes.sort((one, other) => one[0] - other[0]);
  const times = new Map();
  for (const each of said) times.set(each, (times.get(each) ?? 0) + 1);
  const shownFirst = [...times].slice(0, 3), left = said.length - shownFirst.reduce((sum, [, number]) => sum + number, 0);
  const list = shownFirst.map(([each, number]) => (number > 1 ? `${number} x ${each}` : each)).join("; ") + (left ? `; and ${left} more` : "");
  const summary = `${errors.found.filter(each => each.match === RIGHT).length} found, ${missed.size} missed, ${wrong.size} false`;
  const figure = element("figure", {},
    element("button", { class: "shot", type: "button", style: `aspect-ratio:${image.width}/${image.height}`,
      "aria-label": `${image.name}: ${summary}; enlarge`, onclick: () => figure.classList.toggle("large") },
      image.image ? element("img", { src: image.image, alt: "", loading: "lazy" }) : null,
      drawing("svg", { viewBox: `0 0 ${image.width} ${image.height}`, preserveAspectRatio: "none" },
        boxes.map(([, box]) => box), texts)),
    element("figcaption", {}, image.name, element("br"), said.length ? list : summary,
      image.image ? null : " (no copy of this image, to limit the page's size)"));
  return figure;
}

function gallery(entries, state, shown = PAGE) {
  const byImage = new Map();
  for (const entry of entries) byImage.set(entry.image, [...(byImage.get(entry.image) ?? []), entry]);
  const order = [...byImage.keys()].sort((one, other) => byImage.get(other).length - byImage.get(one).length);
  const grid = element("div", { class: "shots" });
  const more = element("button", { type: "button", onclick: () => add() });
  const add = () => {
    const next = order.slice(grid.childElementCount, grid.childElementCount + shown);
    grid.append(...next.map(number => shot(number, byImage.get(number), state)));
    const left = order.length - grid.childElementCount;
    more.textContent = `${Math.min(left, shown)} more of ${order.length} images`;
    more.hidden = !left;
  };
  add();
  return [grid, more];
}

const key = () => element("p", { class: "note key" }, element("i", { class: "right" }), "found",
  element("i", { class: "false" }), "false", element("i", { class: "missed" }), "missed. A click makes an image larger.");

const dialog = element("dialog", { "aria-labelledby": "shown" });
function openGallery(title, entries) {
  const images = new Set(entries.map(each => each.image)).size;
  dialog.replaceChildren(
    element("header", {}, element("h2", { id: "shown" }, `${title}: ${entries.length} in ${counted(images, "image")}`),
      element("button", { type: "button", onclick: () => dialog.close() }, "Close")),
    element("div", {}, key(), gallery(entries, now)));
  dialog.showModal();
  dialog.scrollTop = 0;
}
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });

// ---- charts

const WIDTH = 420, HEIGHT = 290, LEFT = 50, BOTTOM = 34, TOP = 12, RIGHT_EDGE = 10;

/** Returns the axes of a chart with ticks, and the functions that place a point. */
function axes({ x: [lowX, highX], y: [lowY, highY], xTitle, yTitle, xTicks, yTicks }) {
  const placeX = value => LEFT + (value - lowX) / (highX - lowX || 1) * (WIDTH - LEFT - RIGHT_EDGE);
  const placeY = value => HEIGHT - BOTTOM - (value - lowY) / (highY - lowY || 1) * (HEIGHT - BOTTOM - TOP);
  const lines = [
    ...yTicks.map(value => [drawing("path", { class: "axis", d: `M${LEFT} ${placeY(value)}H${WIDTH - RIGHT_EDGE}` }),
      drawing("text", { x: LEFT - 6, y: placeY(value) + 4, "text-anchor": "end" }, short(value))]),
    ...xTicks.map(value => [drawing("path", { class: "axis", d: `M${placeX(value)} ${HEIGHT - BOTTOM}v4` }),
      drawing("text", { x: placeX(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, short(value))]),
    drawing("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xTitle),
    drawing("text", { x: 10, y: (HEIGHT - BOTTOM) / 2, "text-anchor": "middle",
      transform: `rotate(-90 10 ${(HEIGHT - BOTTOM) / 2})` }, yTitle),
  ].flat();
  return { lines, placeX, placeY };
}

const short = value => String(Number(value.toPrecision(3)));

function ticks(low, high, most = 5) {
  const raw = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(value);
  return found;
}

const chart = (title, label, children) => element("div", { class: "chart" }, element("h3", {}, title),
  drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, children));

const path = pairs => pairs.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function curvePoints(curve, kind) {
  return DATA.curves.thresholds.flatMap((threshold, index) => {
    const right = curve.true[index], wrong = curve.false[index];
    const f1 = 2 * right / Math.max(1, right + wrong + curve.objects);
    if (kind === "f1") return [[threshold, f1, threshold]];
    return right + wrong ? [[right / Math.max(1, curve.objects), right / (right + wrong), threshold]] : [];
  });
}

function curveChart(kind, chosen, state) {
  const [title, xTitle, yTitle] = kind === "f1" ? ["F1 by score threshold", "score threshold", "F1 (%)"]
    : ["Precision by recall", "recall (%)", "precision (%)"];
  const scale = kind === "f1" ? 1 : 100;
  const fifths = [0, .2, .4, .6, .8, 1];
  const { lines, placeX, placeY } = axes({ x: [0, scale], y: [0, 100], xTitle, yTitle,
    xTicks: fifths.map(each => each * scale), yTicks: fifths.map(each => each * 100) });
  const drawn = [...DATA.curves.classes.map((curve, label) => [curve, label]), [DATA.curves.all, null]]
    .filter(([curve, label]) => label == null || (curve.objects && chosen.has(label)))
    .flatMap(([curve, label]) => {
      const found = curvePoints(curve, kind).map(([x, y, threshold]) => [placeX(x * scale), placeY(y * 100), threshold]);
      const here = found.find(([, , threshold]) => Math.abs(threshold - state.threshold) < .005);
      const color = label == null ? "var(--text)" : DATA.colors[label];
      const name = label == null ? "all classes" : DATA.classes[label];
      return [drawing("path", { class: `curve${label == null ? " all" : ""}`, d: path(found), stroke: color },
        drawing("title", {}, name)), here && drawing("circle", { cx: here[0], cy: here[1], r: 4, fill: color })];
    });
  return chart(title, `${title} at an overlap of 0.5, for all classes and each class`, [...lines, ...drawn]);
}

function lineChart(title, rows, series, xTitle, scale = 1) {
  const known = series.map(([name, key, color]) => [name, rows.filter(row => row[key] != null && row.epoch != null)
    .map(row => [row.epoch, row[key] * scale]), color]).filter(([, found]) => found.length);
  if (!known.length) return null;
  const all = known.flatMap(([, found]) => found);
  const endX = Math.max(...all.map(([x]) => x)), sorted = all.map(([, y]) => y).sort((one, other) => one - other);
  const usual = sorted[Math.floor(.95 * (sorted.length - 1))], top = Math.min(sorted.at(-1), usual * 2) || 1;
  const { lines, placeX, placeY } = axes({ x: [0, endX], y: [0, top * 1.15], xTitle, yTitle: "", xTicks: ticks(0, endX), yTicks: ticks(0, top) });  // the names are above
  const drawn = known.flatMap(([name, found, color], index) => [
    drawing("path", { class: "curve", stroke: color, d: path(found.map(([x, y]) => [placeX(x), placeY(Math.min(y, top))])) },
      drawing("title", {}, name)),
    found.length < 40 ? found.map(([x, y]) => drawing("circle", { cx: placeX(x), cy: placeY(Math.min(y, top)), r: 2.4, fill: color },
      drawing("title", {}, `${name} ${short(y)} at epoch ${short(x)}`))) : null,
    drawing("rect", { x: LEFT + 10 + index * 110, y: TOP - 6, width: 9, height: 9, fill: color }),
    drawing("text", { x: LEFT + 23 + index * 110, y: TOP + 3 }, name),
  ]).flat();
  return chart(title, `${title} by epoch`, [...lines, ...drawn]);
}

function calibrationChart({ bins }) {
  const fifths = [0, 20, 40, 60, 80, 100];
  const { lines, placeX, placeY } = axes({ x: [0, 100], y: [0, 100], xTitle: "score (%)", yTitle: "right (%)",
    xTicks: fifths, yTicks: fifths });
  const bars = bins.filter(each => each.detections).map(each => drawing("rect", {
    x: placeX(100 * each.low) + 1, width: placeX(100 * each.high) - placeX(100 * each.low) - 2,
    y: placeY(100 * each.precision), height: placeY(0) - placeY(100 * each.precision), fill: "var(--accent)", opacity: .75 },
    drawing("title", {}, `scores ${each.low.toFixed(1)} to ${each.high.toFixed(1)}: ${percent(each.precision)} % of ${each.detections} are right`)));
  const even = drawing("path", { d: path([[placeX(0), placeY(0)], [placeX(100), placeY(100)]]), stroke: "var(--text)",
    "stroke-dasharray": "4 4", fill: "none" });
  return chart("Are scores probabilities?", "Share of right detections by score", [...lines, ...bars, even]);
}

// ---- sections

function head() {
  const metrics = DATA.metrics;
  const about = [DATA.detector, DATA.dataset && `on ${DATA.dataset}`].filter(Boolean).join(" ");
  return [
    element("h1", {}, DATA.name ?? "Report"),
    element("p", { class: "soft" }, about, metrics
      ? `: ${counted(metrics.images, "image")}, ${counted(metrics.objects, "object")}` : ""),
    DATA.verdict && element("div", { class: "verdict", role: "region", "aria-label": "Verdict" },
      DATA.verdict.sentences.map((text, index) => element("p", { class: index === 2 ? "first-step" : "" }, words(text)))),
    DATA.run && element("p", { class: "soft" }, words(DATA.run.state)),
  ];
}

function tiles() {
  const metrics = DATA.metrics;
  const named = { ap: "AP", ap50: "AP50", ap75: "AP75", ap_small: "AP small", ap_medium: "AP medium", ap_large: "AP large",
    ar100: "AR100", f1: `best F1, at ${twoDigits(metrics.score_threshold)}` };
  return element("div", {}, element("div", { class: "tiles" }, Object.entries(named).filter(([key]) => metrics[key] != null && (metrics.rule === "coco" || key !== "ap50"))
    .map(([key, label]) => element("div", { class: "tile", "data-metric": key }, element("b", {}, percent(metrics[key])), element("span", {}, label)))),
    element("p", { class: "note" }, `In percent, by the rule ${metrics.rule}. AP looks at all scores. ` + (metrics.rule === "coco"
      ? "Small, medium and large are COCO's: up to 32 x 32 pixels of the image, up to 96 x 96, and above." : "")));
}

function bar() {
  const output = element("output", { for: "threshold" }), counts = element("span", { class: "now", "aria-live": "polite" });
  const input = element("input", { type: "range", id: "threshold", min: DATA.lowest, max: .99, step: .01, value: kept || DATA.threshold,
    oninput: () => show(Number(input.value)) });
  follows.push(state => {
    const { precision, recall, f1 } = rates(state.all);
    output.textContent = twoDigits(state.threshold);
    counts.textContent = `${state.all.found.length} found, ${state.all.missed.length} missed, ${state.all.false.length} false; ` +
      `precision ${percent(precision)}, recall ${percent(recall)}, F1 ${percent(f1)}`;
  });
  const reset = element("button", { type: "button", title: "the threshold with the highest F1", onclick: () => {
    input.value = DATA.threshold;
    show(DATA.threshold);
  } }, `${DATA.metrics.score_threshold == null ? "Reset" : "Best F1"}: ${twoDigits(DATA.threshold)}`);
  return element("div", { class: "bar" }, element("div", {},
    element("label", { for: "threshold" }, "Score threshold ", output), input, reset, counts));
}

function classes() {
  return section("classes", "Classes", "An object is found if a detection of its class overlaps it by at least 0.5 " +
    "(intersection over union) and scores above the threshold. Precision is the share of detections that are right, recall the " +
    "share of objects that are found, F1 their harmonic mean. AP, AP50 and best F1 do not depend on the threshold. A detector that " +
    "multibox has trained detects each class at the threshold of its own in the last column.",
  following(state => table(["class", "objects", "AP", "AP50", "found", "missed", "false", "precision", "recall", "F1", "best F1", "at score"],
    [["all classes", state.all, DATA.metrics], ...DATA.classes.map((name, label) =>
      [name, state.classes[label], DATA.metrics.per_class[name]])].map(([name, counts, metrics]) => {
      const { precision, recall, f1 } = rates(counts);
      return [name, String(metrics.objects), percent(metrics.ap), percent(metrics.ap50), count(counts.found, `${name}, found`),
        count(counts.missed, `${name}, missed`), count(counts.false, `${name}, false`), percent(precision), percent(recall),
        percent(f1), percent(metrics.f1), twoDigits(metrics.score_threshold)];
    }))));
}

function curves() {
  const chosen = new Set(DATA.classes.length > MANY ? [] : DATA.classes.keys());
  const place = following(state => element("div", { class: "charts" }, curveChart("pr", chosen, state), curveChart("f1", chosen, state)));
  const legend = element("div", { class: "legend" }, DATA.classes.flatMap((name, label) => {
    if (!DATA.curves.classes[label].objects) return [];
    const button = element("button", { type: "button", "aria-pressed": String(chosen.has(label)), onclick: () => {
      chosen[chosen.has(label) ? "delete" : "add"](label);
      button.setAttribute("aria-pressed", String(chosen.has(label)));
      show(now.threshold);
    } }, element("i", { style: `background:${DATA.colors[label]}` }), name);
    return [button];
  }));
  return section("curves", "Curves", "The thick line is all classes together; a dot is the threshold. A click on a name shows or hides its class.",
    place, legend);
}

function matrix() {
  const names = [...DATA.classes, "background"];
  return section("confusions", "Confusions", "A row for the class of the objects, a column for that of the detections. The last " +
    "column has the objects that no detection found, the last row the detections of nothing. Every count shows its images.",
  following(state => {
    const used = names.map((_, index) => index).filter(index => index === names.length - 1 ||
      state.matrix[index].some(cell => cell.length) || state.matrix.some(row => row[index].length));
    const errorsOf = index => state.matrix[index].reduce((sum, cell, other) => sum + (other === index ? 0 : cell.length), 0);
    const shown = used.length <= MOST_COLUMNS ? used : [...used.slice(0, -1).sort((one, other) => errorsOf(other) - errorsOf(one))
      .slice(0, MOST_COLUMNS - 1).sort((one, other) => one - other), used.at(-1)];
    const rows = shown.map(row => {
      const sum = state.matrix[row].reduce((total, cell) => total + cell.length, 0);
      return element("tr", {}, element("th", { scope: "row", title: names[row] }, names[row]), shown.map(column => {
        const entries = state.matrix[row][column];
        const what = row === names.length - 1 ? `${names[column]} where nothing is` : column === names.length - 1
          ? `missed ${names[row]}` : row === column ? `found ${names[row]}` : `${names[row]} taken for ${names[column]}`;
        return element("td", { style: `--share:${sum ? entries.length / sum : 0};--shade:var(--${row === column ? "good" : "bad"})` },
          row === column && row === names.length - 1 ? "" : entries.length ? count(entries, what) : element("span", { class: "soft" }, "0"));
      }));
    });
    return [element("div", { class: "scroll", tabindex: "0" }, element("table", { class: `matrix${shown.length > 8 ? " tall" : ""}` },
      element("thead", {}, element("tr", {}, element("th", { class: "corner" }, "object \\ detection"), shown.map(index => element("th", { scope: "col", title: names[index] }, names[index])))),
      element("tbody", {}, rows))),
    shown.length < used.length ? element("p", { class: "note" }, `The ${shown.length - 1} classes with the most errors; all are in confusion_matrix.csv.`) : null].filter(Boolean);
  }));
}

function errors() {
  const kinds = (list, reasons, title, what) => following(state => table([title, "", ""], Object.entries(reasons).map(([kind, text]) =>
    [kind, count(state[list][kind], `${what}: ${kind}`), element("td", { class: "words" }, words(text))]), "text"));
  const gains = Object.entries(DATA.tide.gains), most = Math.max(...gains.map(([, gain]) => gain), 1e-9);
  return section("errors", "Errors, and what mending them would bring", null,
    kinds("falseKinds", DATA.kinds.false, "false detections", "false detections"),
    kinds("missedKinds", DATA.kinds.missed, "missed objects", "missed objects"),
    element("h3", {}, "What AP50 would gain"),
    element("p", { class: "note" }, `If all errors of a kind were mended, in points, from ${percent(DATA.tide.ap50)} (TIDE, Bolya et al. 2020). ` +
      "This looks at the detections of all scores, not at the threshold, and the gains do not add up."),
    table(["kind", "errors", "gain", ""], gains.map(([kind, gain]) =>
      [kind, String(DATA.tide.counts[kind]), points(gain), part(gain / most)])));
}

function slices() {
  const one = (slice, place) => [
    element("p", { class: "note" }, slice.note),
    following(state => table(["", "objects", "AP", "AP50", "found", "missed", "recall", "", "false"], slice.names.flatMap((name, group) => {
      const { ap, ap50, objects } = slice.ap[group], counts = state.slices[place][group];
      if (!objects && !counts.found.length && !counts.false.length) return [];
      const known = counts.found.length + counts.missed.length, recall = known ? counts.found.length / known : null;
      const title = `${slice.title}: ${name}`;
      return [[name, String(objects), percent(ap), percent(ap50), count(counts.found, `${title}, found`),
        count(counts.missed, `${title}, missed`), percent(recall), part(recall ?? 0), count(counts.false, `${title}, false`)]];
    }))),
  ];
  return section("slices", "Where it works and where it does not", "AP and AP50 by COCO's rule for the objects of each part; found, " +
    "missed and false at the threshold.", DATA.slices.map((slice, place) => slice.names.length > 12
    ? element("details", {}, element("summary", {}, slice.title), one(slice, place))
    : element("div", {}, element("h3", {}, slice.title), one(slice, place))));
}

function calibration() {
  return section("calibration", "Calibration", "The share of right detections in each range of scores, at an overlap of 0.5. On the " +
    `dashed line a score of 0.7 is right in 7 of 10 cases. Mean distance from it over all detections: ${percent(DATA.calibration.error)} points.`,
  element("div", { class: "charts" }, calibrationChart(DATA.calibration), element("div", {}, table(["scores", "detections", "mean score", "right"],
    DATA.calibration.bins.filter(each => each.detections).map(each =>
      [`${each.low.toFixed(1)} to ${each.high.toFixed(1)}`, String(each.detections), percent(each.score), percent(each.precision)])))));
}

function training() {
  const rows = DATA.run.rows;
  const charts = [
    lineChart("Loss", rows, [["localization", "localization", "#2a8cff"], ["confidence", "confidence", "#e8590c"],
      ["distillation", "distillation", "#9c36b5"]], "epoch"),
    lineChart("Average precision (%)", rows, [["AP50", "ap50", "#2a8cff"], ["AP", "ap", "#e8590c"], ["AP75", "ap75", "#1f9d55"]], "epoch", 100),
    lineChart("Learning rate", rows, [["learning rate", "learning_rate", "#2a8cff"]], "epoch"),
    lineChart("Images a second", rows, [["images/s", "images_per_second", "#2a8cff"]], "epoch"),
  ].filter(Boolean);
  return section("training", "Training", charts.length ? null : "No step has been reported yet.", element("div", { class: "charts" }, charts));
}

function comparisons() {
  return section("comparison", "Compared with others", "A paired bootstrap over the images: the interval holds 95 % of the differences " +
    "in a thousand sets drawn from these images. If it contains 0, the difference may be chance.",
  DATA.comparisons.map(({ name, rows }) => {
    const [{ before, after, low, high }] = rows;
    const sure = low > 0 ? `${name} is better` : high < 0 ? `${name} is worse` : `whether ${name} is better cannot be told from these images`;
    return element("div", {}, element("h3", {}, name),
      element("p", {}, `AP ${percent(after)} against ${percent(before)}, ${points(after - before)} (${points(low)} to ${points(high)}): ${sure}.`),
      table(["", DATA.name ?? "this one", name, "difference", "95 % interval", ""], rows.map(row => [row.what, percent(row.before), percent(row.after),
        points(row.after - row.before), `${points(row.low)} to ${points(row.high)}`, row.low > 0 ? "better" : row.high < 0 ? "worse" : "may be chance"])));
  }));
}

function worst() {
  return section("worst", "The images with the most errors", null, key(),
    following(state => gallery([...state.all.missed, ...state.all.false], state, 8)));
}

function rests() {
  return section("rests", "What the verdict rests on", `The rules and their limits are in docs/evaluation.md. The verdict is that of the threshold ${twoDigits(DATA.threshold)}.`,
    table(["rule", "errors", "", ""], DATA.verdict.findings.map(each => [each.rule, each.errors ? String(each.errors) : "-",
      element("td", { class: "words" }, each.sentence), element("td", { class: "words" }, words(each.action))]), "text"));
}

function ends() {
  return [
    Object.keys(DATA.facts ?? {}).length ? section("facts", "Speed and circumstances", null, table(["", ""], Object.entries(DATA.facts)
      .map(([name, value]) => [name, element("td", { class: "words" }, value)]), "text")) : null,
    DATA.files && section("files", "Files beside this page", null, table(["file", ""], Object.entries(DATA.files)
      .map(([name, text]) => [element("a", { href: name }, name), element("td", { class: "words" }, text)]), "text")),
  ];
}

// ---- the page

const RELOADS = document.querySelector("meta[http-equiv=refresh]");   // the threshold then outlives a reload
const kept = RELOADS && Number(sessionStorage.getItem(location.pathname));
let now = null;
let due = 0;
function show(threshold) {
  cancelAnimationFrame(due);
  const draw = () => {
    if (!now || now.threshold !== threshold) now = countAt(threshold);
    for (const follow of follows) follow(now);
  };
  if (now) due = requestAnimationFrame(draw);
  else draw();
  if (RELOADS) sessionStorage.setItem(location.pathname, threshold);
}

const opening = element("header", { class: "top" }, head());
document.body.append(opening, dialog);
if (DATA.images) {
  const parts = [classes(), errors(), matrix(), worst(), slices(), curves(), DATA.comparisons.length ? comparisons() : null,
    calibration(), DATA.run ? training() : null, DATA.verdict.findings.length ? rests() : null, ...ends()].filter(Boolean);
  opening.append(tiles(), element("nav", { "aria-label": "Sections" }, parts.map(each =>
    element("a", { href: `#${each.id}` }, each.querySelector("h2").textContent))));
  opening.after(bar(), element("main", {}, parts));
  show(kept || DATA.threshold);
} else if (DATA.run) opening.after(element("main", {}, training()));
