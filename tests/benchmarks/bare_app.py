"""Baseline of `startup.py`: a minimal Gradio app that embeds a text with the bundled backbone.

    python -m tests.benchmarks.bare_app PORT

It loads the model before it starts to serve, as such scripts usually do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr  # noqa: E402
import open_clip  # noqa: E402
import torch  # noqa: E402

from sieve import assets  # noqa: E402


def main() -> None:
    """Serve until stopped."""
    name = f"local-dir:{Path(assets.__file__).parent / 'backbones' / 'sieve-lite'}"
    network: Any = open_clip.create_model_and_transforms(name, device="cpu")[0]
    tokenizer = open_clip.get_tokenizer(name)

    def embed(text: str) -> list[float]:
        with torch.inference_mode():
            return network.encode_text(tokenizer([text]))[0].tolist()

    with gr.Blocks(analytics_enabled=False) as app:
        text, answer = gr.Textbox(), gr.JSON()
        text.submit(embed, text, answer, queue=False, api_name="embed")
    app.launch(server_port=int(sys.argv[1]), quiet=True, share=False)


if __name__ == "__main__":
    main()
