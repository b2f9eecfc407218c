"""Access control and request validation: who may connect, from which site, with which request."""
