"""Policies exported to CybORG, and both simulators compared."""
