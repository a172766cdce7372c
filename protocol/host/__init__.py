"""The process and its host: cores, signals, stderr, freed memory, the file of a heartbeat."""
