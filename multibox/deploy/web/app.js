import { prepare } from "./prepare.js";
import { suppress } from "./suppress.js";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const video = $("video");
let detector; // what detector.json says
let session; // the model, the engine that runs it, and what makes its input
let threshold; // the score above which boxes are shown; undefined: each class has its own
let shown; // the image that is shown, and what the network says of it
let filming; // the run of the camera, and its tracks

// One thing at a time: an engine runs one image at once, and another engine may be chosen meanwhile.
let turn = Promise.resolve();
const inTurn = (work) => (turn = turn.catch(() => {}).then(work));

async function openModel(engine) {
  const ort = await import(`./ort/ort.${engine}.min.mjs`);
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  const model = await ort.InferenceSession.create("model.onnx", { executionProviders: [engine] });
  await session?.model.release();
  const { height, width, resize } = detector.input;
  const type = resize === "float" ? "float32" : "uint8";
  session = { model, engine, tensor: (pixels) => new ort.Tensor(type, pixels, [1, 3, height, width]) };
}

/** An image, and the boxes and scores of all default boxes in it. */
async function runOn(source, width, height) {
  if (!session) throw new Error("the detector is not loaded");
  const whole = new OffscreenCanvas(width, height);
  const context = whole.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind transparent pixels
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const began = performance.now();
  const pixels = prepare(context.getImageData(0, 0, width, height).data, height, width, detector.input);
  const { boxes, scores } = await session.model.run({ images: session.tensor(pixels) });
  const milliseconds = performance.now() - began;
  return { source: whole, width, height, boxes: boxes.data, scores: scores.data, milliseconds };
}

/** The detections among these boxes, as the detector gives them; they are in pixels of the image. */
function detectionsOf({ width, height, boxes, scores }) {
  const { class_names, score_thresholds, detect_score_threshold, settings } = detector;
  const thresholds = class_names.map((name) => threshold ?? score_thresholds[name] ?? detect_score_threshold);
  const size = [width, height, width, height];
  return suppress(boxes, scores, thresholds, settings).map(({ label, score, box, index }) => ({
    label,
    default_box_index: index,
    name: class_names[label],
    score,
    box: Array.from(box, (value, side) => Math.min(Math.max(value * size[side], 0), size[side])),
  }));
}

async function show(source, width, height) {
  shown = await inTurn(() => runOn(source, width, height));
  draw();
}

function draw() {
  if (!shown) return;
  const { source, width, height } = shown;
  const began = performance.now();
  const found = detectionsOf(shown);
  const milliseconds = shown.milliseconds + performance.now() - began;
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
  document.body.dataset.found = JSON.stringify(found); // for tests
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
  image.close();
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
  const run = (filming = { tracks: [] });
  $("camera").textContent = "Stop";
  $("status").ariaLive = "off"; // it changes with each frame
  say("Opening the camera …");
  const hint = "no camera; the page must come from https or localhost, and be allowed to use one";
  const frame = () => show(video, video.videoWidth, video.videoHeight);
  let works = await tried(() => openCamera(run), hint);
  while (works && filming === run) {
    works = await tried(frame, "nothing can be detected");
    await new Promise(requestAnimationFrame);
  }
  stopTracks(run); // it may have been stopped before it was open
  if (filming === run) stopCamera();
}

async function openCamera(run) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  run.tracks = stream.getTracks();
  if (filming !== run) return;
  for (const track of run.tracks) track.onended = stopCamera; // it was unplugged, or may not be used any more
  video.srcObject = stream;
  await video.play();
}

function stopCamera() {
  if (!filming) return;
  stopTracks(filming);
  filming = undefined;
  $("camera").textContent = "Camera";
  $("status").ariaLive = "polite";
}

function stopTracks({ tracks }) {
  for (const track of tracks) track.stop();
}

async function chooseEngine() {
  const choice = $("engine");
  const [engine, name] = [choice.value, choice.selectedOptions[0].text];
  say("Loading the detector …");
  delete document.body.dataset.engine;
  const opened = await tried(() => inTurn(() => openModel(engine)), `the detector does not run on ${name} here`);
  if (session) document.body.dataset.engine = choice.value = session.engine; // the one before, if this one fails
  if (!opened) return;
  if (shown && !filming) await tried(async () => show(shown.source, shown.width, shown.height), "nothing can be detected");
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
  $("shown").textContent = own ? "by class" : detector.detect_score_threshold.toFixed(2);
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
  $("camera").onclick = () => {
    if (!filming) return startCamera();
    stopCamera();
    return shown ? draw() : say("Ready.");
  };
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
      if (kind !== "drop") return;
      const [file] = event.dataTransfer.files;
      if (file) openImage(file);
      else say("what was dropped is no file; save the image and choose it", true);
    });
  }
}

const read = async () => (detector = await (await fetch("detector.json")).json());
if (await tried(read, "detector.json cannot be read; write the page again with multibox export --web")) {
  describe();
  listen();
  await chooseEngine();
}
