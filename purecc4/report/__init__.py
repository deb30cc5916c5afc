"""Statistics, figures and pages from evaluation tables."""
