"""Statistics of the tables: plain functions, truth and score first, numpy in and small frozen records out."""
