"""Is the simulator CybORG? Recorded episodes replayed step by step, and free play compared as distributions."""
