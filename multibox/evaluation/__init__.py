"""How good a detector is on a data set: average precision by the rules of VOC and of COCO."""
