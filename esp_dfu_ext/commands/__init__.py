"""What both faces do: run a job, show it, turn an error into an exit code.

One module for each command, so that a flash does not load what only a build needs.
"""
