import { suppress } from "./suppress.js";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const video = $("video");
let detector; // detector.json: class_names, settings, thresholds, name
let session;
let shown; // what is drawn: the image and its detections
let filming = 0; // number of the camera's run; 0: none

/** Opens the model in an engine, `wasm` or `webgpu`. */
async function open(engine) {
  const build = engine === "webgpu" ? "webgpu" : "wasm";
  const ort = await import(`./ort/ort.${build}.min.mjs`);
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: [engine] });
  session.tensor = (pixels, height, width) => new ort.Tensor("uint8", pixels, [1, height, width, 3]);
}

/** The detections in an image, above the lowest score that the detector gives. */
export async function detect(source, width, height) {
  const whole = new OffscreenCanvas(width, height);
  const context = whole.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    pixels[to++] = rgba[from];
    pixels[to++] = rgba[from + 1];
    pixels[to++] = rgba[from + 2];
  }
  const began = performance.now();
  const { boxes, scores } = await session.run({ image: session.tensor(pixels, height, width) });
  const found = suppress(boxes.data, scores.data, detector.class_names.length, detector.settings);
  const scale = [width, height, width, height];
  for (const one of found) {
    one.name = detector.class_names[one.label];
    one.box = one.box.map((value, place) => Math.min(Math.max(value * scale[place], 0), scale[place]));
  }
  return { found, milliseconds: performance.now() - began };
}

async function show(source, width, height) {
  const { found, milliseconds } = await detect(source, width, height);
  if (source instanceof HTMLVideoElement) source = await createImageBitmap(source);
  shown = { source, width, height, found, milliseconds };
  draw();
}

function draw() {
  if (!shown) return;
  const { source, width, height, milliseconds } = shown;
  const threshold = Number($("threshold").value);
  const found = shown.found.filter((one) => one.score > threshold);
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.drawImage(source, 0, 0, width, height);
  const unit = Math.max(width, height) / 300;
  context.lineWidth = unit;
  context.font = `${Math.max(4.5 * unit, 12)}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const one of found) {
    const [left, top, right, bottom] = one.box;
    const text = `${one.name} ${one.score.toFixed(2)}`;
    context.strokeStyle = context.fillStyle = `hsl(${(one.label * 137.5) % 360} 85% 45%)`;
    context.strokeRect(left, top, right - left, bottom - top);
    const size = context.measureText(text);
    const line = 6 * unit + 4;
    const x = Math.min(left, width - size.width - 2 * unit);
    const y = Math.max(top - line, 0);
    context.fillRect(x, y, size.width + 2 * unit, line);
    context.fillStyle = "white";
    context.fillText(text, x + unit, y + unit / 2);
  }
  canvas.hidden = false;
  $("hint").hidden = true;
  $("stage").classList.add("full");
  const rows = found.map((one) => {
    const [left, top, right, bottom] = one.box.map(Math.round);
    return [one.name, one.score.toFixed(2), left, top, right - left, bottom - top];
  });
  $("found").hidden = rows.length === 0;
  $("found").tBodies[0].replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return line;
  }));
  const count = found.length === 1 ? "1 object" : `${found.length || "no"} objects`;
  say(`${count}, ${milliseconds.toFixed(0)} ms`);
  document.body.dataset.found = JSON.stringify(shown.found); // for tests
}

function say(text) {
  $("status").textContent = text;
}

async function open_image(file) {
  stop();
  say("Detecting");
  try {
    const image = await createImageBitmap(file, { imageOrientation: "from-image" });
    await show(image, image.width, image.height);
  } catch (error) {
    say(`${file.name}: the browser cannot read this image (${error.message})`);
  }
}

async function film() {
  if (filming) return stop();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return say(`no camera (${error.message}); a page needs https or localhost for it`);
  }
  await video.play();
  const run = (filming = Date.now());
  $("camera").textContent = "Stop";
  while (filming === run) {
    await show(video, video.videoWidth, video.videoHeight);
    await new Promise(requestAnimationFrame);
  }
}

function stop() {
  if (!filming) return;
  filming = 0;
  $("camera").textContent = "Camera";
  for (const track of video.srcObject.getTracks()) track.stop();
}

async function choose_engine() {
  const engine = $("engine").value;
  say("Loading the detector");
  try {
    await open(engine);
  } catch (error) {
    say(`${engine} does not run the detector here (${error.message})`);
    return;
  }
  if (shown && !filming) await show(shown.source, shown.width, shown.height);
  else say("Ready");
}

detector = await (await fetch("detector.json")).json();
document.title = $("title").textContent = detector.name;
$("about").textContent = `finds ${detector.class_names.join(", ")}`;
$("threshold").value = detector.detect_score_threshold;
$("shown").textContent = Number(detector.detect_score_threshold).toFixed(2);
for (const engine of navigator.gpu ? ["wasm", "webgpu"] : ["wasm"]) $("engine").add(new Option(engine));
$("threshold").oninput = () => {
  $("shown").textContent = Number($("threshold").value).toFixed(2);
  draw();
};
$("engine").onchange = choose_engine;
$("camera").onclick = film;
$("choose").onclick = () => $("file").click();
$("file").onchange = () => $("file").files[0] && open_image($("file").files[0]);
$("stage").onkeydown = (event) => event.key === "Enter" && $("file").click();
$("stage").ondblclick = () => $("file").click();
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) open_image(event.dataTransfer.files[0]);
  });
}
addEventListener("paste", (event) => event.clipboardData.files[0] && open_image(event.clipboardData.files[0]));
await choose_engine();
