"""Trainings that the page starts and follows, and what may be chosen of them."""
