"""What Flower shows of digitq; `celery -A protocol flower --conf=…/flowerconfig.py`.

`args` says which job and chunk and how many images, `result` how many failed and how fast.
"""

tasks_columns = "state,args,result,runtime,worker,received"
natural_time = False
max_tasks = 10_000  # bounds Flower's memory
