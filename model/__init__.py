"""The science: backbones, sparse codes, exclusion search and what dimensions mean."""
