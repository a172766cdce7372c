"""Pages that digitq serves to browsers on this computer or its network."""
