"""From evaluation tables to statistics, figures and pages."""
