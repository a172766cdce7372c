"""Rendered training pictures: handwriting, scenes, and shapes that are no digit."""
