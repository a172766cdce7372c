"""The process and its host: cores, signals, stderr, freed memory, signs of life."""
