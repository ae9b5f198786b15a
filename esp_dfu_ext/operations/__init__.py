"""Build, inspect, list, flash, watch: each takes data and returns data, and reports progress as events.

`gang` flashes several boards at once, `record` keeps a file with a line for each board. Nothing here prints or asks;
clock and bus are parameters.
"""
