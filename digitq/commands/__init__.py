"""The commands, one file for each family; `digitq/cli.py` adds them."""
