"""The experiments of `lab.py`: tables and figures of the papers, one module for each group."""
