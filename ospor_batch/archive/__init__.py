"""Files to instance rows: walk a folder tree, judge each file by its content, read its header."""
