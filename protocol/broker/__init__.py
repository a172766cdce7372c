"""Redis as the broker: its address, and connections that retry."""
