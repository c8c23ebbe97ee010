"""Generated archives and exports whose truth is known; nothing in them is clinical."""
