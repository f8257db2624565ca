"""Exported files: one file that holds a detector for another engine, and the proof that it finds the same."""
