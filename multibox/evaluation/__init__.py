"""Score a detector on a data set: average precision by the rules of VOC and of COCO."""
