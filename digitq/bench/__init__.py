"""`digitq bench`: what is measured, in rounds, and the medians."""
