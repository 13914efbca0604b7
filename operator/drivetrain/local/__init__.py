"""The embedded mode: the whole platform on one machine, without Docker or root (environment.py is the way in)."""
