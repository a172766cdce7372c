"""Rendered training pictures: handwriting, scenes, and pictures of no digit."""
