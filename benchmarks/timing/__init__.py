"""The parts of `speed.py`: it builds revisions, runs their processes, makes inputs, times jobs and sums up."""
