"""What turns prepared images into boxes, scores and labels, behind one call."""
