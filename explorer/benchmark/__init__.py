"""The exclusion benchmark told and drawn, as files and as a tab, and run from there.

Whoever needs a module of it imports that one, so nothing is imported here.
"""
