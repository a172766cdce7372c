"""Other programs beside digitq: `python -m benchmarks.rivals`."""
