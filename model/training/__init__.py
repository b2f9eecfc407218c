"""Train sparse encoders: configuration, losses, the training loop and calibration."""
