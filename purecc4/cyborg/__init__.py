"""Policies on their way to CybORG, and both simulators compared."""
