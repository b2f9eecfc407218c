"""Where records come from: folders of images, published data sets, embeddings made elsewhere.

A source is imported only by who prepares from it, so nothing is imported here.
"""
