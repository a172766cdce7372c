"""Other queues beside digitq: `python -m benchmarks.queues`."""
