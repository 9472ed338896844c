"""Stored checkpoints of single sessions: kept small on disk, and given back to be restored."""
