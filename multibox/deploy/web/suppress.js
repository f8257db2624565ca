// What multibox.postprocess does, from the boxes and scores of all default boxes, in the same 32-bit arithmetic.

const f = Math.fround;

/**
 * The detections of one image, the highest score first.
 *
 * @param {Float32Array} boxes corner form, four numbers for each default box, as fractions of the image
 * @param {Float32Array} scores a score of each class, for each default box
 * @param {number[]} thresholds the score of each class above which its boxes are candidates
 * @param {{iou_threshold: number, class_agnostic: boolean, max_candidates_per_class: number, max_detections: number,
 *          merge: string}} settings the others of multibox.config.Postprocess
 * @returns {{label: number, score: number, box: Float32Array, index: number}[]} `index` is that of the default box
 */
export function suppress(boxes, scores, thresholds, settings) {
  const candidates = candidatesOf(boxes, scores, thresholds, settings);
  const threshold = f(settings.iou_threshold);
  const rivals = (one, other) => settings.class_agnostic || one.label === other.label;
  const suppressorOf = (one, kept) => kept.find((other) => rivals(one, other) && overlap(one.box, other.box) > threshold);
  const kept = [];
  for (const one of candidates) {
    if (kept.length === settings.max_detections) break;
    if (!suppressorOf(one, kept)) kept.push(one);
  }
  return settings.merge === "weighted" ? vote(candidates, kept, suppressorOf) : kept;
}

/** All boxes that enter suppression. Of equal scores the first default box comes first, then the first class. */
function candidatesOf(boxes, scores, thresholds, settings) {
  const least = Float32Array.from(thresholds);
  const classes = least.length;
  const ofClass = thresholds.map(() => []);
  scores.forEach((score, place) => {
    if (Number.isNaN(score)) throw new Error("the network gives NaN");
    const label = place % classes;
    if (score <= least[label]) return;
    const index = Math.floor(place / classes);
    ofClass[label].push({ label, score, box: boxes.slice(4 * index, 4 * index + 4), index });
  });
  const order = (one, other) => other.score - one.score || one.index - other.index || one.label - other.label;
  return ofClass.flatMap((own) => own.sort(order).slice(0, settings.max_candidates_per_class)).sort(order);
}

/** Each kept box, moved to the mean of itself and of the boxes that it is the first to suppress, weighted by score. */
function vote(candidates, kept, suppressorOf) {
  const sums = new Map(kept.map((one) => [one, { weight: 0, corners: [0, 0, 0, 0] }]));
  for (const one of candidates) {
    const sum = sums.get(sums.has(one) ? one : suppressorOf(one, kept));
    if (!sum) continue;
    sum.weight += one.score;
    one.box.forEach((value, place) => (sum.corners[place] += value * one.score));
  }
  return kept.map((one) => {
    const { weight, corners } = sums.get(one);
    return { ...one, box: Float32Array.from(corners, (value) => value / weight) };
  });
}

function overlap(one, other) {
  const width = Math.max(f(Math.min(one[2], other[2]) - Math.max(one[0], other[0])), 0);
  const height = Math.max(f(Math.min(one[3], other[3]) - Math.max(one[1], other[1])), 0);
  const area = (box) => f(Math.max(f(box[2] - box[0]), 0) * Math.max(f(box[3] - box[1]), 0));
  const intersection = f(width * height);
  const union = f(f(area(one) + area(other)) - intersection);
  return f(intersection / Math.max(union, 2 ** -126));
}
