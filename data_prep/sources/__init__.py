"""Sources of records: folders of images, published data sets, external embeddings and codes.

Nothing is imported here, so that each command imports only its own source.
"""
