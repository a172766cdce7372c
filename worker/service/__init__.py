"""Celery's side of a worker: transport, heartbeat, supervision, limits, logs."""
