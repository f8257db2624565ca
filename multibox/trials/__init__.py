"""Short trainings that answer a question about the data: predictions on folds, and the learning curve."""
