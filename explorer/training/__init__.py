"""Trainings that the explorer starts: in a process of their own, found again, resumable."""
