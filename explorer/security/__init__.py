"""Protection of the explorer: who may connect, from where, and with what request."""
