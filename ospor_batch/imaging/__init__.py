"""Pixels to arrays in HU, masks onto their grid, and what is measured in a region."""
