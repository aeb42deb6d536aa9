"""From finished windows to servers and files.

exporter (the thread) → delivery (who gets what, what is counted and logged) → targets (pyroscope, files).
"""
