"""`digitq bench`: what it measures, in rounds whose medians it prints."""
