"""The review of labels: what a detector doubts, a page to decide about each doubt, and the decisions applied."""
