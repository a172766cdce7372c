"""Metrics, the live view, and tables of jobs and workers."""
