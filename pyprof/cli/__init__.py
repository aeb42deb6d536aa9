"""The command line: `pyprof` and `python -m pyprof`. One module a command, loaded when it is called."""
