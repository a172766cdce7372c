"""What a person calls: the command line, and `from digitq import Client`."""
