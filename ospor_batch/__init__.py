"""Batch processing of large retrospective cohorts in opportunistic osteoporosis screening."""

__version__ = "0.1.0"
