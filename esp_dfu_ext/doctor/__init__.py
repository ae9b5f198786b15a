"""Findings about machine, bus and project, and, kept apart from them, advice about what to do."""
