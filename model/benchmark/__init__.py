"""The exclusion benchmark: methods, tuned alike and measured on items not used for training."""
