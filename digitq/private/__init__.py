"""Redis, workers and Flower that end with this process."""
