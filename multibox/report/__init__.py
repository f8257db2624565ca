"""What a run leaves for people: its card, curves, and sheet of images."""
