"""Faults of every kind, on real processes: killed, hung, cut off, restarted."""
