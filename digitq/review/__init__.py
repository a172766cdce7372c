"""A page that shows results and takes corrections, and the table with these corrections."""
