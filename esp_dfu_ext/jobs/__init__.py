"""The jobs: build, inspect, list, flash.

They take data and return data; what happens on the way they report as events. They never print, never ask,
and get the time and the bus handed in. The package's top level has their public names.
"""
