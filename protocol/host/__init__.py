"""What the process asks of its host: cores, signals, stderr, freed memory."""
