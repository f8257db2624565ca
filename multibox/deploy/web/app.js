import { prepare } from "./prepare.js";
import { suppress } from "./suppress.js";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const video = $("video");
const detector = await (await fetch("detector.json")).json();
let session; // the model in its engine, and what makes its input
let threshold; // the score above which boxes are shown; undefined: each class has its own
let shown; // the image that is shown, and its detections
let filming; // an object for each run of the camera

// One thing at a time: an engine runs one image at once, and another engine may be chosen meanwhile.
let turn = Promise.resolve();
const inTurn = (work) => (turn = turn.catch(() => {}).then(work));

async function openModel(engine) {
  const ort = await import(`./ort/ort.${engine}.min.mjs`);
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  const model = await ort.InferenceSession.create("model.onnx", { executionProviders: [engine] });
  const { height, width, resize } = detector.input;
  const type = resize === "float" ? "float32" : "uint8";
  session = { model, tensor: (pixels) => new ort.Tensor(type, pixels, [1, 3, height, width]) };
}

/** All detections that the detector gives in an image; boxes are in its pixels. */
async function detect(source, width, height) {
  const whole = new OffscreenCanvas(width, height);
  const context = whole.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind transparent pixels
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const began = performance.now();
  const pixels = prepare(context.getImageData(0, 0, width, height).data, height, width, detector.input);
  const { boxes, scores } = await session.model.run({ images: session.tensor(pixels) });
  const found = suppress(boxes.data, scores.data, detector.class_names.length, detector.settings);
  const size = [width, height, width, height];
  const detections = found.map(({ label, score, box, index }) => ({
    label,
    default_box_index: index,
    name: detector.class_names[label],
    score,
    box: Array.from(box, (value, side) => Math.min(Math.max(value * size[side], 0), size[side])),
  }));
  return { source: whole, width, height, detections, milliseconds: performance.now() - began };
}

async function show(source, width, height) {
  shown = await inTurn(() => detect(source, width, height));
  draw();
}

function draw() {
  if (!shown) return;
  const { source, width, height, detections, milliseconds } = shown;
  const least = (name) => threshold ?? detector.score_thresholds[name] ?? detector.detect_score_threshold;
  const found = detections.filter(({ name, score }) => score > least(name));
  canvas.hidden = false;
  $("hint").hidden = true;
  $("stage").classList.add("full");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(source, 0, 0);
  const pixel = width / canvas.clientWidth; // one of the screen, in pixels of the image
  for (const one of found.toReversed()) outline(context, one, pixel);
  for (const one of found.toReversed()) write(context, one, pixel, width);
  list(found);
  const count = found.length === 1 ? "1 object" : `${found.length || "No"} objects`;
  say(`${count}, ${milliseconds.toFixed(0)} ms`);
  document.body.dataset.found = JSON.stringify(detections); // for tests
}

function outline(context, { box: [left, top, right, bottom], label }, pixel) {
  context.strokeStyle = detector.colors[label];
  context.lineWidth = 2.5 * pixel;
  context.strokeRect(left, top, right - left, bottom - top);
}

function write(context, { box: [left, top], label, name, score }, pixel, width) {
  const text = `${name} ${score.toFixed(2)}`;
  context.font = `${13 * pixel}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const [high, long] = [19 * pixel, context.measureText(text).width + 8 * pixel];
  const x = Math.max(Math.min(left - 1.25 * pixel, width - long), 0);
  const y = Math.max(top - high, 0);
  context.fillStyle = detector.colors[label];
  context.fillRect(x, y, long, high);
  context.fillStyle = isBright(detector.colors[label]) ? "black" : "white";
  context.fillText(text, x + 4 * pixel, y + high / 2);
}

function isBright(color) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16));
  return 0.3 * red + 0.6 * green + 0.1 * blue > 110;
}

function list(found) {
  const rows = found.map(({ box, label, name, score }) => {
    const [left, top, right, bottom] = box.map(Math.round);
    const row = document.createElement("tr");
    for (const text of [name, score.toFixed(2), left, top, right - left, bottom - top]) row.insertCell().append(text);
    const color = document.createElement("i");
    color.style.background = detector.colors[label];
    row.cells[0].prepend(color);
    return row;
  });
  $("found").tBodies[0].replaceChildren(...rows);
  $("found").hidden = rows.length === 0;
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

async function openImage(file) {
  stopCamera();
  say("Detecting …");
  let image;
  try {
    image = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    return say(`${file.name}: this browser cannot read it as an image; save it as JPEG or PNG`, true);
  }
  await tried(() => show(image, image.width, image.height), `${file.name}: nothing can be detected`);
}

/** Does the work; an error is shown. Returns whether there was none. */
async function tried(work, what) {
  try {
    await work();
    return true;
  } catch (error) {
    say(`${what} (${error.message})`, true);
    return false;
  }
}

async function startCamera() {
  const facing = { video: { facingMode: "environment" } };
  const hint = "no camera; the page must come from https or localhost, and be allowed to use one";
  const there = await tried(async () => (video.srcObject = await navigator.mediaDevices.getUserMedia(facing)), hint);
  if (!there) return;
  await video.play();
  const run = (filming = {});
  $("camera").textContent = "Stop";
  const frame = () => show(video, video.videoWidth, video.videoHeight);
  while (filming === run && (await tried(frame, "nothing can be detected"))) await new Promise(requestAnimationFrame);
  if (filming === run) stopCamera();
}

function stopCamera() {
  if (!filming) return;
  filming = undefined;
  $("camera").textContent = "Camera";
  for (const track of video.srcObject.getTracks()) track.stop();
}

async function chooseEngine() {
  const engine = $("engine").value;
  say("Loading the detector …");
  delete document.body.dataset.engine;
  if (!(await tried(() => inTurn(() => openModel(engine)), `${engine} does not run the detector here`))) return;
  document.body.dataset.engine = engine; // for tests
  if (shown && !filming) await tried(() => show(shown.source, shown.width, shown.height), "nothing can be detected");
  else say("Ready.");
}

function describe() {
  const names = detector.class_names;
  const more = names.length > 8 ? ` and ${names.length - 8} more` : "";
  document.title = $("title").textContent = detector.name;
  $("about").textContent = `Finds ${names.slice(0, 8).join(", ")}${more}.`;
  $("about").title = names.join(", ");
  $("threshold").value = detector.detect_score_threshold;
  const own = Object.keys(detector.score_thresholds).length > 0;
  $("shown").textContent = own ? "best" : detector.detect_score_threshold.toFixed(2);
  if (own) $("shown").title = "for each class the score with the best F1 on the validation set";
  $("engine").add(new Option("the processor", "wasm"));
  if (navigator.gpu) $("engine").add(new Option("the GPU", "webgpu"));
}

function listen() {
  $("threshold").oninput = () => {
    threshold = Number($("threshold").value);
    $("shown").textContent = threshold.toFixed(2);
    draw();
  };
  $("engine").onchange = chooseEngine;
  $("camera").onclick = () => (filming ? stopCamera() : startCamera());
  $("choose").onclick = () => $("file").click();
  $("file").onchange = () => {
    if ($("file").files[0]) openImage($("file").files[0]);
    $("file").value = ""; // so that the same file can be chosen again
  };
  addEventListener("paste", ({ clipboardData }) => clipboardData.files[0] && openImage(clipboardData.files[0]));
  addEventListener("resize", draw);
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      $("stage").classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) openImage(event.dataTransfer.files[0]);
    });
  }
}

describe();
listen();
await chooseEngine();
