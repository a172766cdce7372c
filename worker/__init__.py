"""The Celery side: takes chunks, decodes and normalises images, runs the network, answers."""
