"""The Celery side: takes chunks, decodes and normalises images, runs the network, answers."""

import os

# Importing this package changes the process: MKL reads this variable at its first multiplication.
# In strict mode it sums each row in the same order, whatever the batch's size.
os.environ["MKL_CBWR"] = "AUTO,STRICT"
