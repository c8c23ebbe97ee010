"""The study file: what an epidemiologist may write, checked before any work."""

from __future__ import annotations

from ospor_batch.config.cohort import Analysis, Criterion, Match, Reference, Split
from ospor_batch.config.exports import Center, ColumnSource, EventFile, Export, MappedFile
from ospor_batch.config.recipes import Masks, Recipe, Threshold
from ospor_batch.config.running import Compute, ComputeSection, Drift, Sweep
from ospor_batch.config.sections import Name, Secret, Section, Share, Site
from ospor_batch.config.study import Study, StudySection, Tables, json_schema, read_key, read_study

__all__ = [
    "Analysis",
    "Center",
    "ColumnSource",
    "Compute",
    "ComputeSection",
    "Criterion",
    "Drift",
    "EventFile",
    "Export",
    "MappedFile",
    "Masks",
    "Match",
    "Name",
    "Recipe",
    "Reference",
    "Secret",
    "Section",
    "Share",
    "Site",
    "Split",
    "Study",
    "StudySection",
    "Sweep",
    "Tables",
    "Threshold",
    "json_schema",
    "read_key",
    "read_study",
]
