"""Zero-shot evidence that a dimension represents a text.

The code of a text also contains dimensions that only co-occurred with its words in the training
captions. The evidence for dimension j and text t is

    AUC_jt = P(z_xj > z_yj), x an image that matches t, y one that does not,

where the images with the highest cosine of their centred embedding and the text count as matches.
Neither captions nor labels are used.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, csr_array

from sieve.model.codes import shape_of
from sieve.model.dimensions.statistics import auc_matrix

MATCHING = 0.05
"""Share of the images that count as matches of a text."""
SAMPLE = 5000
"""Maximum number of images to use."""


def sample_rows(n: int) -> np.ndarray:
    """Return at most `SAMPLE` of n rows, evenly spaced: (s,) int64."""
    return np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64)


class ZeroShotEvidence:
    """Evidence of dimensions for texts, measured on a set of images.

    Parameters
    ----------
    codes : (n, m) float32, sparse, non-negative
        Codes of images.
    embeddings : (n, d) float16 or float32
        The backbone's embeddings of the same images.
    """

    def __init__(self, codes: csr_array, embeddings: np.ndarray) -> None:
        images = np.asarray(embeddings, np.float32)
        images = images - images.mean(0)
        norms = np.linalg.norm(images, axis=1, keepdims=True)
        self._images = images / np.maximum(norms, 1e-12)
        self._codes = csc_array(codes)

    def auc(self, texts: np.ndarray, dimensions: np.ndarray | None = None) -> np.ndarray:
        """Return the evidence of dimensions for texts: (t, m) float32 in [0, 1].

        Parameters
        ----------
        texts : (t, d) float32
            The backbone's embeddings of the texts.
        dimensions : (c,) int64, optional
            Dimensions to compute, by default all; the others get 0.5.
        """
        _, m = shape_of(self._codes)
        dimensions = np.arange(m) if dimensions is None else dimensions
        cosines = self._images @ texts.T  # (n, t)
        matches = cosines >= np.quantile(cosines, 1 - MATCHING, axis=0)
        auc_ct = auc_matrix(self._codes[:, dimensions], csr_array(matches.astype(np.float32)))
        evidence = np.full((len(texts), m), 0.5, np.float32)
        evidence[:, dimensions] = np.nan_to_num(auc_ct.T, nan=0.5)
        return evidence
