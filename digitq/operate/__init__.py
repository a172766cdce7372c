"""Operating a deployment: what is wrong with it, its metrics, tables of its jobs."""
