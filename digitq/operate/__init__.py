"""Operating a deployment: what is wrong with it, its metrics, and tables of jobs and workers."""
