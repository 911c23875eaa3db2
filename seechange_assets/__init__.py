"""Dagster and the command line: wiring. No arithmetic, no SQL."""
