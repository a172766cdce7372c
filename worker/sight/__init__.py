"""From any file to a picture, and to what a network sees."""
