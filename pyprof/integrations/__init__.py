"""Labels and a start of the profiler for frameworks: one module each, which loads nothing but its framework.

They know only pyprof's public names. A fault of theirs is logged once and never reaches the application.
"""
