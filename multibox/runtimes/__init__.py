"""What turns prepared pictures into boxes, scores and labels, behind one call."""
