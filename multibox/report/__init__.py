"""The reports of a run for people: its card, curves, and sheet of images."""
