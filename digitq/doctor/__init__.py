"""`digitq doctor`: finds what in a deployment could lose work or let someone in."""
