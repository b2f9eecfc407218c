"""Paper figures: the recipe they are made from, what it shows, and how that is drawn.

A recipe is read without matplotlib, so nothing is imported here.
"""
