"""A tiny BLIP model with random weights, saved in the layout of the real one."""

from __future__ import annotations

from pathlib import Path

import torch

SIZE = 32
WIDTH = 24


def tiny_blip(folder: Path, seed: int = 0, *, processor_size: int = SIZE, kind: str = "") -> Path:
    """Save a model with its processor; `kind` selects another BLIP class of transformers."""
    import transformers

    letters = [chr(97 + i) for i in range(26)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["dog", "cat", "beach", "snow", "red", "blue", "circle", "square", "the", "in"]
    vocabulary = [*special, *words, *letters, *(f"##{letter}" for letter in letters)]
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    text = {
        **tower,
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "encoder_hidden_size": 40,
        "max_position_embeddings": 20,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "sep_token_id": 3,
        "eos_token_id": 3,
    }
    config = transformers.BlipConfig(
        text_config=text,
        vision_config={**tower, "hidden_size": 40, "image_size": SIZE, "patch_size": 8},
        image_text_hidden_size=WIDTH,
        projection_dim=WIDTH,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, kind or "BlipForImageTextRetrieval")(config)
        for part in model.parameters():
            # Without the noise, the embeddings of all images are nearly equal.
            part.data += 0.1 * torch.randn(part.shape)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer = transformers.BertTokenizerFast(
        vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=512
    )
    size = {"height": processor_size, "width": processor_size}
    images = transformers.BlipImageProcessor(size=size)
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder
