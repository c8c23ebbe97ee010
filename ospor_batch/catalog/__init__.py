"""Instances to series: grouped, harmonised from word lists, measured and graded."""
