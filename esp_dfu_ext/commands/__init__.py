"""One module for each command: parse its options, call the operation, show the result, return an exit code.

A command loads only what it needs itself: a flash does not import what a build does.
"""
