"""The networks, their weights and cards, and the device that they run on."""
