"""Goes on from given weights with a user's own images."""
