"""Findings and advice, kept apart: what is known about machine, bus and project, and what to do about it."""
