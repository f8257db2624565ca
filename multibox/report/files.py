"""The files of a report."""

REPORT_FILES = {
    "index.html": "this page",
    "metrics.json": "all numbers of the evaluation, as fractions: those of evaluate --json",
    "results.csv": "the numbers of each class and of all classes, as fractions",
    "PR_curve.png": "precision by recall at all score thresholds",
    "F1_curve.png": "F1 by score threshold; its peak is the best threshold",
    "confusion_matrix.png": "the confusion matrix at the stated threshold, drawn",
    "confusion_matrix.csv": "the confusion matrix: a row for the class of the objects, a column for that of the "
    "detections",
    "false.csv": "every false detection: image, class, score, box, kind of error, and the object that it overlaps most",
    "missed.csv": "every missed object: image, class, box, kind of error, the detection that overlaps it most, and the "
    "highest score that a fitting box of its class has",
}
"""The files that `write_report` writes, and what each of them holds."""
