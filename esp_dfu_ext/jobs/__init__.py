"""The jobs: building, inspecting, listing, flashing (one board), gang (several), watching (on and on).

And what goes with them: reporting keeps the record, permitting installs the udev rule. They take data and return data;
what happens on the way they tell as events. They never print, never ask, and get the time and the bus handed in.
"""
