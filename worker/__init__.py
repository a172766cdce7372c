"""The Celery side: takes chunks, decodes and normalises images, runs the network, answers."""

import os

# Importing this package changes the process: MKL reads this variable at its first multiplication.
# In strict mode it sums each row in the same order, whatever the batch's size.
os.environ["MKL_CBWR"] = "AUTO,STRICT"
# ONNX Runtime reads this variable when it is imported. Without it, it sends telemetry, writes a
# device id to the home folder, and starts a thread before the pool is forked.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
