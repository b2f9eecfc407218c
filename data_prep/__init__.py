"""From images and captions to prepared collections."""
