"""Training: configuration, the loop and its step, checkpoints, fine-tuning, and classifiers on a model."""
