"""Parity with CybORG: recorded episodes replayed step by step, and free play compared in distribution."""
