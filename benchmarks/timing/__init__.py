"""What `speed.py` is made of: revisions and their processes, inputs, jobs, statistics."""
