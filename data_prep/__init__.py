"""Prepare collections from images, captions and embeddings."""
