"""Measurements, not tests: what a step costs and how near the truth it comes, as figures for people."""
