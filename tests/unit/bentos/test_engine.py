from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bentos import engine as engine_module
from bentos.decoder import GRAPH, Decoder
from bentos.engine import Engine, EngineStoppedError, QueueFullError
from bentos.generation import Generation, Piece, Prompt
from bentos.sampling import Sampling
from bentos.text import TextCodec

CONTEXT = 512
GREEDY = Sampling(temperature=0)
WAIT_S = 60.0


class Listener:
    """Collects the pieces of one generation."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.begun, self._ended = threading.Event(), threading.Event()

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.begun.set()
        if piece.finish is not None:
            self._ended.set()

    def wait(self) -> Piece:
        assert self._ended.wait(WAIT_S)
        return self.pieces[-1]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


class Spy:
    """An observer that remembers, and can hold the engine up at its next step."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.reused: list[int] = []
        self.in_step, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def stepped(self, n_rows: int) -> None:
        self.batches.append(n_rows)
        self.in_step.set()
        assert self.go_on.wait(WAIT_S)

    def prefilled(self, n_tokens: int, n_reused: int) -> None:
        self.reused.append(n_reused)


@pytest.fixture(scope="module")
def codec(served_folder: Path) -> TextCodec:
    return TextCodec(served_folder)


@pytest.fixture
def spy() -> Spy:
    return Spy()


@pytest.fixture
def make(served_folder: Path, codec: TextCodec, spy: Spy) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def _make(n_slots: int = 4, max_waiting: int = 64, end_tokens: tuple[int, ...] = ()) -> Engine:
        decoder = Decoder(served_folder / GRAPH, n_slots=n_slots, context_length=CONTEXT, n_threads=1)
        made.append(Engine(decoder, codec, end_tokens=end_tokens, max_waiting=max_waiting, observer=spy))
        return made[-1]

    yield _make
    spy.go_on.set()
    for engine in made:
        engine.close()


def tokens(n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(2, 1024, n))


def ask(engine: Engine, prompt: tuple[int, ...], n: int = 16, **more: Any) -> Listener:
    listener = Listener()
    more.setdefault("sampling", GREEDY)
    engine.submit(Prompt(prompt, n, **more), listener)
    return listener


def answer(engine: Engine, prompt: tuple[int, ...], n: int = 16, **more: Any) -> str:
    listener = ask(engine, prompt, n, **more)
    listener.wait()
    return listener.text


def naive(folder: Path, codec: TextCodec, prompt: tuple[int, ...], n: int) -> str:
    """Greedy decoding without any cache: the whole sequence through the graph for every token."""
    decoder = Decoder(folder / GRAPH, n_slots=1, context_length=CONTEXT, n_threads=1)
    sequence = list(prompt)
    for _ in range(n):
        sequence.append(int(decoder.prefill(0, np.array(sequence), 0).argmax()))
    return codec.decode(sequence[len(prompt) :])


@pytest.mark.parametrize("n_prompt", [1, 2, 63, 64, 65, 66, 130])
def test_greedy_text_is_that_of_a_loop_without_a_cache(
    make: Callable[..., Engine], codec: TextCodec, served_folder: Path, n_prompt: int
) -> None:
    """Around the size of a chunk above all."""
    prompt = tokens(n_prompt, seed=n_prompt)

    assert answer(make(), prompt, 12) == naive(served_folder, codec, prompt, 12)


def test_requests_together_get_the_text_that_each_gets_alone(make: Callable[..., Engine], spy: Spy) -> None:
    """More requests than rows, of different lengths: they join, leave and change rows while others run."""
    prompts = [tokens(5 + 17 * k % 90, seed=k) for k in range(12)]
    lengths = [3 + 7 * k % 31 for k in range(12)]
    alone = make(n_slots=1)
    expected = [answer(alone, prompt, n) for prompt, n in zip(prompts, lengths, strict=True)]

    spy.batches.clear()
    together = make(n_slots=4)
    listeners = [ask(together, prompt, n) for prompt, n in zip(prompts, lengths, strict=True)]
    ends = [listener.wait() for listener in listeners]

    assert [listener.text for listener in listeners] == expected
    assert [end.n_tokens for end in ends] == lengths
    assert max(spy.batches) == 4


def test_rows_that_end_in_one_step_leave_the_others_running(make: Callable[..., Engine], spy: Spy) -> None:
    """The first row and the last of three: the last must not be moved into the place of the first."""
    alone = make(n_slots=1)
    prompts, lengths = [tokens(10, seed=k) for k in range(3)], (12, 40, 10)
    expected = [answer(alone, prompt, n) for prompt, n in zip(prompts, lengths, strict=True)]
    engine = make()
    spy.in_step.clear()
    spy.go_on.clear()
    first = ask(engine, prompts[0], lengths[0])
    assert spy.in_step.wait(WAIT_S)  # held in its first step: each of the others joins one step later
    listeners = [first, ask(engine, prompts[1], lengths[1]), ask(engine, prompts[2], lengths[2])]
    spy.batches.clear()
    spy.go_on.set()
    for listener in listeners:
        listener.wait()

    assert [listener.text for listener in listeners] == expected
    assert spy.batches[:12] == [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1]


def test_sampled_text_depends_on_the_seed_and_not_on_the_company(make: Callable[..., Engine]) -> None:
    engine, prompt = make(), tokens(20)
    sampling = Sampling(temperature=1.0, top_p=0.9, seed=11)
    alone = answer(engine, prompt, 24, sampling=sampling)

    crowd = [ask(engine, tokens(9, seed=k), 24, sampling=Sampling(seed=k)) for k in range(3)]
    again = answer(engine, prompt, 24, sampling=sampling)
    for listener in crowd:
        listener.wait()

    assert again == alone
    assert answer(engine, prompt, 24, sampling=Sampling(temperature=1.0, top_p=0.9, seed=12)) != alone


def test_a_known_beginning_is_not_read_again_and_changes_nothing(make: Callable[..., Engine], spy: Spy) -> None:
    first, second = tokens(40) + tokens(10, seed=1), tokens(40) + tokens(20, seed=2)
    expected = answer(make(), second)
    engine = make()
    spy.reused.clear()

    answer(engine, first)

    assert answer(engine, second) == expected
    assert answer(engine, second) == expected
    assert spy.reused == [0, 40, 58]  # the last two tokens are always read


def test_a_beginning_is_known_from_a_running_request_too(make: Callable[..., Engine], spy: Spy) -> None:
    shared = tokens(30)
    expected = answer(make(), (*shared, 5, 6, 7))
    engine = make()
    spy.reused.clear()
    running = ask(engine, (*shared, 8, 9), 200)
    running.begun.wait(WAIT_S)

    assert answer(engine, (*shared, 5, 6, 7)) == expected
    assert spy.reused == [0, 30]


def test_an_end_token_stops_and_is_not_told(make: Callable[..., Engine], codec: TextCodec, served_folder: Path) -> None:
    prompt = tokens(12)
    text = naive(served_folder, codec, prompt, 8)
    fifth = codec.encode(text)[4]
    expected = codec.decode(codec.encode(text)[: codec.encode(text).index(fifth)])

    listener = ask(make(end_tokens=(fifth,)), prompt, 8)

    assert listener.wait().finish == "stop"
    assert listener.text == expected


def test_a_stop_string_ends_the_text_before_it(make: Callable[..., Engine]) -> None:
    engine, prompt = make(), tokens(12)
    whole = answer(engine, prompt, 16)
    stop = whole[6:9]

    listener = ask(engine, prompt, 16, stops=(stop,))

    assert listener.wait().finish == "stop"
    assert listener.text == whole[: whole.index(stop)]


def test_the_text_ends_with_its_length_and_with_the_context(make: Callable[..., Engine]) -> None:
    engine = make()

    short, full = ask(engine, tokens(5), 7), ask(engine, tokens(CONTEXT - 4), 100)

    assert (short.wait().finish, short.wait().n_tokens) == ("length", 7)
    # One token comes of the prompt, and one more of each position that is left.
    assert (full.wait().finish, full.wait().n_tokens) == ("length", 5)


@pytest.mark.parametrize(("n_prompt", "n"), [(0, 1), (CONTEXT, 1), (3, 0)])
def test_a_prompt_that_cannot_be_is_refused(make: Callable[..., Engine], n_prompt: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        make().submit(Prompt(tokens(n_prompt), n), Listener())


def test_no_more_wait_than_may(make: Callable[..., Engine], spy: Spy) -> None:
    engine = make(n_slots=1, max_waiting=2)
    spy.go_on.clear()
    running = ask(engine, tokens(5))
    running.begun.wait(WAIT_S)  # its prompt is read; the engine is held in its first step
    waiting = [ask(engine, tokens(6)), ask(engine, tokens(7))]

    with pytest.raises(QueueFullError):
        engine.submit(Prompt(tokens(8), 4), Listener())
    spy.go_on.set()

    assert [listener.wait().finish for listener in (running, *waiting)] == ["length"] * 3
    assert answer(engine, tokens(9))  # and there is room again


def test_cancelling_frees_the_row_for_the_next(make: Callable[..., Engine]) -> None:
    engine = make(n_slots=1)
    running, waiting = Listener(), Listener()
    first = engine.submit(Prompt(tokens(5), 500, GREEDY), running)
    second = engine.submit(Prompt(tokens(6), 500, GREEDY), waiting)
    third = ask(engine, tokens(7), 4)
    running.begun.wait(WAIT_S)

    second.cancel()
    first.cancel()

    assert third.wait().finish == "length"
    assert running.wait().finish == "cancelled"
    assert (waiting.wait().finish, waiting.text) == ("cancelled", "")


def test_cancelling_while_a_long_prompt_is_read(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    begun, go_on = threading.Event(), threading.Event()
    decoder = engine._decoder
    prefill = decoder.prefill

    def slow(slot: int, chunk: np.ndarray, start: int) -> np.ndarray:
        begun.set()
        go_on.wait(WAIT_S)
        return prefill(slot, chunk, start)

    monkeypatch.setattr(decoder, "prefill", slow)
    listener = Listener()
    generation = engine.submit(Prompt(tokens(500), 5, GREEDY), listener)
    begun.wait(WAIT_S)
    generation.cancel()
    go_on.set()

    assert listener.wait().finish == "cancelled"
    assert (len(listener.pieces), engine.n_running) == (1, 0)


def test_what_is_being_read_is_not_forgotten_when_another_request_ends(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_KEPT_TOKENS", 0)
    engine = make()
    starts: list[int] = []
    prefill = engine._decoder.prefill

    def watched(slot: int, chunk: np.ndarray, start: int) -> np.ndarray:
        starts.append(start)
        return prefill(slot, chunk, start)

    monkeypatch.setattr(engine._decoder, "prefill", watched)
    short = [ask(engine, tokens(5, seed=k), 3) for k in range(2)]
    ask(engine, tokens(300), 2).wait()

    assert [listener.wait().finish for listener in short] == ["length"] * 2
    assert starts == [0, 0, 0, 64, 128, 192, 256]


def test_a_failing_step_ends_what_runs_with_an_error_and_the_next_request_is_served(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    expected = answer(engine, tokens(9))

    def fail(*_: Any) -> np.ndarray:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(engine._decoder, "step", fail)
        assert ask(engine, tokens(8)).wait().finish == "error"

    assert answer(engine, tokens(9)) == expected
    assert engine.is_alive


def test_a_listener_that_fails_ends_its_own_request_alone(make: Callable[..., Engine]) -> None:
    engine = make()
    told: list[Piece] = []

    def gone(piece: Piece) -> None:
        told.append(piece)
        raise RuntimeError("event loop is closed")

    generation: Generation = engine.submit(Prompt(tokens(5), 400, GREEDY), gone)

    assert ask(engine, tokens(6), 30).wait().finish == "length"
    assert generation.cancelled
    # It may be cancelled only before the next step, so after its first piece or its second.
    assert told[-1].finish == "cancelled"
    assert len(told) <= 3


def test_closing_ends_what_runs_and_what_waits(make: Callable[..., Engine]) -> None:
    engine = make(n_slots=1)
    running, waiting = ask(engine, tokens(5), 500), ask(engine, tokens(6), 500)
    running.begun.wait(WAIT_S)

    engine.close()

    assert [running.wait().finish, waiting.wait().finish] == ["cancelled", "cancelled"]
    with pytest.raises(EngineStoppedError):
        engine.submit(Prompt(tokens(5), 1), Listener())


def test_kept_prompts_are_bounded(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_KEPT_TOKENS", 130)
    engine = make()
    listeners = [ask(engine, tokens(60, seed=k), 80) for k in range(4)]
    for listener in listeners:
        listener.wait()
    answer(engine, tokens(3))

    kept = [len(row.prompt) for row in engine._rows]
    assert sum(kept) <= 130
    assert max(kept) == 60
