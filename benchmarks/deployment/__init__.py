"""The load test of a deployment: `python -m benchmarks.deployment`."""
