"""Playing policies: episodes, the evaluation table, an episode to watch."""
