"""Training around an algorithm: settings, loop, run folder, checkpoints, devices, tracking."""
