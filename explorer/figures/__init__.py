"""Paper figures: recipe, content, layout and drawing.

Nothing is imported here, because a recipe can be read without matplotlib.
"""
