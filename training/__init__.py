"""How the installed networks were made, in a clone only: recipes, trainers, rendered pictures."""
