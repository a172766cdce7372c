"""The Celery side: takes chunks, decodes and normalises images, runs the network, answers."""

import os

# Before torch loads: MKL's strict mode sums each row in the same order, whatever the batch's size
os.environ["MKL_CBWR"] = "AUTO,STRICT"
