"""One side of the decode benchmark, in a process of its own: `python -m benchmarks._decode_side SIDE FOLDER`.

Prints JSON. Each side imports only what it needs, so that no other runtime's threads compete with it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bentos.engine import Engine

N_PROMPT, N_TOKENS = 32, 40
# Both read their prompt first; what is timed are the tokens after it.
_CLIENT_TOKENS, _CLIENT_REQUESTS = 64, 2
_QUESTIONS = (
    "What does the sorted function return?",
    "How do I open a file for writing in Python?",
    "Explain what a generator is, with an example.",
    "When should I use a tuple instead of a list?",
    "What is the difference between == and is?",
    "How does exception handling work in Python?",
    "What does numpy's einsum do?",
    "How do I merge two dictionaries?",
)


def torch_eager(folder: Path) -> dict[str, float]:
    """Greedy decoding with transformers, fp32, its KV cache, no compilation: tokens a second at batch 1."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
    tokens = torch.arange(100, 100 + N_PROMPT)[None]
    with torch.inference_mode():
        answer = model(input_ids=tokens, use_cache=True)
        cache, token = answer.past_key_values, answer.logits[:, -1:].argmax(-1)
        for _ in range(4):  # warm
            answer = model(input_ids=token, past_key_values=cache, use_cache=True)
            token = answer.logits[:, -1:].argmax(-1)
        started = time.perf_counter()
        for _ in range(N_TOKENS):
            answer = model(input_ids=token, past_key_values=cache, use_cache=True)
            token = answer.logits[:, -1:].argmax(-1)
        return {"tokens_per_s": N_TOKENS / (time.perf_counter() - started)}


def onnx_decoder(folder: Path, spin: bool) -> dict[str, float]:
    """The same with the served graph and the server's decoder: tokens a second at batch 1 and at batch 8."""
    import numpy as np

    from bentos.decoder import GRAPH, Decoder
    from bentos.serving_config import ServingSettings, read_facts

    n_threads = ServingSettings().n_threads
    context_length = read_facts(folder).context_length
    decoder = Decoder(folder / GRAPH, n_slots=8, context_length=context_length, n_threads=n_threads, spin=spin)
    prompt = np.arange(100, 100 + N_PROMPT)
    figures = {}
    for batch in (1, 8):
        tokens = np.array([int(decoder.prefill(slot, prompt, 0).argmax()) for slot in range(batch)])
        length = N_PROMPT
        for _ in range(4):
            tokens, length = decoder.step(tokens, np.full(batch, length)).argmax(-1), length + 1
        started = time.perf_counter()
        for _ in range(N_TOKENS):
            tokens, length = decoder.step(tokens, np.full(batch, length)).argmax(-1), length + 1
        figures[f"batch_{batch}"] = batch * N_TOKENS / (time.perf_counter() - started)
    return figures


def engine_clients(folder: Path) -> dict[str, float]:
    """The server's engine with its defaults: tokens a second of one client and of eight, prompts included."""
    from bentos.decoder import GRAPH, Decoder
    from bentos.engine import Engine
    from bentos.serving_config import ServingSettings, read_facts
    from bentos.text import TextCodec

    serving = ServingSettings()
    decoder = Decoder(
        folder / GRAPH,
        n_slots=serving.slots,
        context_length=read_facts(folder).context_length,
        n_threads=serving.n_threads,
        spin=serving.spin,
    )
    engine = Engine(decoder, TextCodec(folder), end_tokens=(), max_waiting=serving.queue)
    _clients(engine, 1)  # warm
    figures = {"one": _clients(engine, 1), "eight": _clients(engine, 8)}
    engine.close()
    return figures


def _clients(engine: Engine, n_clients: int) -> float:
    """Each client asks one question after the other and waits for its answer. Tokens a second, over all."""
    from bentos.generation import Piece, Prompt
    from bentos.sampling import Sampling

    def ask(number: int) -> None:
        for turn in range(_CLIENT_REQUESTS):
            messages = [{"role": "user", "content": f"{_QUESTIONS[number]} ({turn})"}]
            ended = threading.Event()

            def tell(piece: Piece, ended: threading.Event = ended) -> None:
                if piece.finish is not None:
                    ended.set()

            tokens = tuple(engine.codec.encode_chat(messages))
            engine.submit(Prompt(tokens, _CLIENT_TOKENS, Sampling(temperature=0)), tell)
            ended.wait()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(n_clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n_clients * _CLIENT_REQUESTS * _CLIENT_TOKENS / (time.perf_counter() - started)


SIDES: dict[str, Callable[[Path], dict[str, float]]] = {
    "torch": torch_eager,
    "onnx": lambda folder: onnx_decoder(folder, spin=False),
    "onnx-spin": lambda folder: onnx_decoder(folder, spin=True),
    "clients": engine_clients,
}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]))))
