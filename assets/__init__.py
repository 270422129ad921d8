"""Published initializations and sample signals; see `README.md` for sources and licences."""
