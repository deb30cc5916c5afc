"""Environments of purecc4."""
