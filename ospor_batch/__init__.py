"""Batch processing of large retrospective cohorts in opportunistic osteoporosis screening."""

__version__ = "0.1.0"
PREDICTORS_GROUP = "ospor_batch.predictors"  # entry points by which other packages offer predictors
