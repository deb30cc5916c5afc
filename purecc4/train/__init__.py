"""What surrounds the training of an algorithm: run folder, checkpoints, devices, tracking."""
