"""The report of a run: contract tables in, one self-contained page and its figures out; pure, nothing is read or written."""

from ospor_batch.report.html import render
from ospor_batch.report.page import Page, RunTables, compose

__all__ = ["Page", "RunTables", "compose", "render"]
