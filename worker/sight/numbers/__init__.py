"""Reads whole numbers: finds digits in a picture, chooses a line of them, and weighs readings."""
