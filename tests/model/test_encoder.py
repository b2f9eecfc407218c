from __future__ import annotations

import numpy as np
import pytest
import torch

from sieve.model.codes import encode_codes
from sieve.model.encoder import SparseEncoder, encode_dense, keep_top
from sieve.model.hyperparameters import IMAGE, TEXT, SparseEncoderConfig


def encoder() -> SparseEncoder:
    made = SparseEncoder(SparseEncoderConfig(d=16, m=32, k=4), torch.Generator().manual_seed(0))
    made.centre.copy_(torch.randn(2, 16, generator=torch.Generator().manual_seed(1)) * 0.1)
    return made


def embeddings(n: int = 9) -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((n, 16)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_codes_follow_the_formula() -> None:
    sparse = encoder()
    x = embeddings()
    codes = encode_codes(sparse, x, TEXT)
    centred = x - sparse.centre[1].numpy()
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    active = np.maximum(centred @ sparse.encode_md.detach().numpy().T, 0)
    for row in range(len(x)):
        expected = np.where(active[row] >= np.sort(active[row])[-4], active[row], 0)
        np.testing.assert_allclose(codes.dense(row), expected / np.linalg.norm(expected), atol=1e-6)


def test_batches_do_not_change_codes() -> None:
    sparse = encoder()
    whole = encode_codes(sparse, embeddings(), IMAGE).by_row.toarray()
    parts = encode_codes(sparse, embeddings(), IMAGE, batch_size=2).by_row.toarray()
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_modalities_have_separate_centres() -> None:
    sparse = encoder()
    image = encode_codes(sparse, embeddings(), IMAGE).by_row.toarray()
    text = encode_codes(sparse, embeddings(), TEXT).by_row.toarray()
    assert not np.allclose(image, text)


def test_decoder_columns_have_unit_norm() -> None:
    np.testing.assert_allclose(np.linalg.norm(encoder().directions, axis=1), 1, atol=1e-6)


def test_keep_top_passes_gradients_to_selected_activations() -> None:
    activations = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    keep_top(activations, 2).sum().backward()
    assert activations.grad is not None
    assert activations.grad.tolist() == [[1.0, 0.0, 1.0]]


def test_nan_is_rejected_by_row() -> None:
    broken = embeddings()
    broken[5, 3] = np.nan
    with pytest.raises(ValueError, match="image embedding 5 is not finite"):
        encode_codes(encoder(), broken, IMAGE)


@pytest.mark.parametrize("bad", [{"k": 0}, {"k": 33}, {"m": 0}])
def test_invalid_shape_is_rejected(bad: dict) -> None:
    with pytest.raises(ValueError):
        SparseEncoderConfig(**{"d": 16, "m": 32, "k": 4} | bad)


def test_other_activations_follow_their_formulas() -> None:
    x = embeddings()
    for activation in ("elu", "dense"):
        config = SparseEncoderConfig(d=16, m=32, k=4, activation=activation)
        made = SparseEncoder(config, torch.Generator().manual_seed(0))
        linear = x @ made.encode_md.detach().numpy().T
        if activation == "dense":
            expected = linear / np.linalg.norm(linear, axis=1, keepdims=True)
            np.testing.assert_allclose(encode_dense(made, x, IMAGE), expected, atol=1e-6)
        else:
            positive = np.where(linear > 0, linear + 1, np.exp(np.minimum(linear, 0)))
            codes = encode_codes(made, x, IMAGE).by_row.toarray()
            assert ((codes > 0).sum(1) == 4).all()
            np.testing.assert_array_equal(codes.argmax(1), positive.argmax(1))


def test_batches_are_halved_until_they_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sparse = encoder()
    whole = encode_codes(sparse, embeddings(), IMAGE)
    encode, sizes = SparseEncoder.encode, []

    def limited(self: SparseEncoder, batch: torch.Tensor, modality: str):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, batch, modality)

    monkeypatch.setattr(SparseEncoder, "encode", limited)
    parts = encode_codes(sparse, embeddings(), IMAGE, batch_size=8)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert "encoding continues in batches of 4" in caplog.text
    assert "encoding continues in batches of 2" in caplog.text
    np.testing.assert_allclose(parts.by_row.toarray(), whole.by_row.toarray(), atol=1e-6)


def test_an_embedding_that_never_fits_into_memory_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SparseEncoder, "encode", full)
    with pytest.raises(torch.OutOfMemoryError):
        encode_codes(encoder(), embeddings(), IMAGE)
