"""Export of policies to CybORG, and comparison of the two simulators."""
