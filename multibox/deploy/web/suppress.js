// Suppression as in multibox/postprocess.py: by class, or across classes, in the order of the scores.

/**
 * The detections of one image, the highest score first.
 *
 * @param {Float32Array} boxes corner form, four numbers of each default box, as fractions of the image
 * @param {Float32Array} scores a score of each class, for each default box
 * @param {number} classes number of classes
 * @param {{score_threshold: number, iou_threshold: number, class_agnostic: boolean,
 *          max_candidates_per_class: number, max_detections: number}} settings
 * @returns {{label: number, score: number, box: number[], index: number}[]}
 */
export function suppress(boxes, scores, classes, settings) {
  const candidates = [];
  for (let label = 0; label < classes; label += 1) {
    const own = [];
    for (let index = 0; index * classes < scores.length; index += 1) {
      const score = scores[index * classes + label];
      if (score > settings.score_threshold) own.push({ label, score, index });
    }
    own.sort(byScore);
    candidates.push(...own.slice(0, settings.max_candidates_per_class));
  }
  candidates.sort(byScore);
  const kept = [];
  for (const one of candidates) {
    if (kept.length === settings.max_detections) break;
    const box = boxes.subarray(4 * one.index, 4 * one.index + 4);
    const rivals = settings.class_agnostic ? kept : kept.filter((other) => other.label === one.label);
    if (rivals.every((other) => overlap(box, other.box) <= settings.iou_threshold)) kept.push({ ...one, box });
  }
  return kept.map((one) => ({ ...one, box: Array.from(one.box) }));
}

// of equal scores the first default box wins, then the first class
function byScore(one, other) {
  return other.score - one.score || one.index - other.index || one.label - other.label;
}

function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => Math.max(box[2] - box[0], 0) * Math.max(box[3] - box[1], 0);
  return (width * height) / (area(one) + area(other) - width * height);
}
