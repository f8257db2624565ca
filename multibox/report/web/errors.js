// What is wrong in an image above a score threshold: the rules of multibox/evaluation/errors.py, which a test compares.

const NEAR = 0.1, FITS = 0.5;
const RIGHT = 1, FALSE = 0, NONE = -1;

/** Returns the errors in an image as {found, false, missed, confusions}; the indices are those of image_values in html.py. */
function judge(image, threshold) {
  const objects = image.objects.map(([label, counts, score]) => ({ label, counts, score }));
  const found = image.found.filter(([, score]) => score > threshold)
    .map(([label, score, match, object, , , , , pairs]) => ({ label, score, match, object, near: nearest(pairs) }));
  const hit = new Set(found.filter(each => each.match === RIGHT).map(each => each.object));
  const missed = [...objects.keys()].filter(index => objects[index].counts && !hit.has(index));
  const wrong = [...found.keys()].filter(index => found[index].match === FALSE);
  const takenFor = pair(objects, found, missed, wrong);          // detection -> object
  const confused = new Map([...takenFor].map(([detection, object]) => [object, detection]));

  const falseKind = index => {
    const { label, near } = found[index];
    const fits = near.filter(each => each.overlap >= FITS);
    if (!takenFor.has(index) && fits.some(each => objects[each.object].label === label)) return "duplicate";
    if (fits.length) return "wrong class";
    return near.some(each => objects[each.object].label === label) ? "poor box" : "background";
  };
  const missedKind = index => {
    const { label, score } = objects[index];
    if (confused.has(index)) return "wrong class";
    if (score > 0 && score <= threshold) return "low score";
    const isNear = found.some(each => each.label === label && each.near.some(near => near.object === index));
    return isNear ? "poor box" : "not found";
  };
  return {
    found,
    false: wrong.map(index => ({ detection: index, kind: falseKind(index) })),
    missed: missed.map(index => ({ object: index, kind: missedKind(index) })),
    confusions: [                                                // [class of the object, of the detection, their indices]
      ...found.flatMap((each, index) => each.match === RIGHT ? [[each.label, each.label, each.object, index]] : []),
      ...missed.map(index => confused.has(index)
        ? [objects[index].label, found[confused.get(index)].label, index, confused.get(index)]
        : [objects[index].label, NONE, index, NONE]),
      ...wrong.filter(index => !takenFor.has(index)).map(index => [NONE, found[index].label, NONE, index]),
    ],
  };
}

/** Returns the objects near a detection from the flat list of indices and overlaps. */
function nearest(pairs) {
  const near = [];
  for (let place = 0; place < pairs.length; place += 2) near.push({ object: pairs[place], overlap: pairs[place + 1] });
  return near;
}

/** Returns the missed object of another class that each false detection found: the best score chooses first. */
function pair(objects, found, missed, wrong) {
  const free = new Set(missed), pairs = new Map();
  for (const index of wrong) {
    const others = found[index].near
      .filter(each => free.has(each.object) && each.overlap >= FITS && objects[each.object].label !== found[index].label);
    if (!others.length) continue;
    const best = others.reduce((one, other) => (other.overlap > one.overlap ? other : one));
    pairs.set(index, best.object);
    free.delete(best.object);
  }
  return pairs;
}
