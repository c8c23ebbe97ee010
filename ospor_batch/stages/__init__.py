"""The imperative shell: one function behind every command; stages alone touch disk and cluster."""
