"""Pictures for people: how an image came to its answer, and where the fields of a form are."""
