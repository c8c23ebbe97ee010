"""Exports to exams, exams to labels: rows in, rows and typed rejects out."""
