"""Predictors: what turns a volume and its masks into a score."""
