from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ssp_sam.errors import CancelledError, InvalidArgumentError, SegmentationError
from ssp_sam.serving.model_calls import JoinedCalls, ModelCall
from ssp_sam.serving.stages import Array


class Doubler:
    """A `CallModel` that doubles its rows; a row with a negative number is refused, with all that share its call."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.under_way = self.most_under_way = 0
        self.gate = asyncio.Event()

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        values = call.inputs["x"]
        self.calls.append(values[:, 0].tolist())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if (values < 0).any():
            raise InvalidArgumentError(f"negative: {values[:, 0].tolist()}")
        return dict.fromkeys(call.outputs, 2 * values)


class Adder:
    """A `CallModel` that adds a row's `shared` number to its list `x`; tells `shared` as well."""

    def __init__(self) -> None:
        self.calls: list[list[list[float]]] = []
        self.gate = asyncio.Event()

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        values, shared = call.inputs["x"], call.inputs["shared"]
        assert len(values) == len(shared)
        self.calls.append(values.tolist())
        await self.gate.wait()
        if (values < 0).any():
            raise InvalidArgumentError(f"negative: {values.tolist()}")
        answer = {"y": values + shared, "shared": shared}
        return {name: answer[name] for name in call.outputs}


def some(values: list[float], shared: float, subject: str | None = "s") -> ModelCall:
    return ModelCall(
        "adder",
        {"x": np.array([values]), "shared": np.array([[shared]])},
        ["y", "shared"],
        subject=subject and f"{subject}{shared}",
    )


def one(
    value: float, *, width: int = 1, output: str = "y", is_cancelled: Callable[[], bool] = lambda: False
) -> ModelCall:
    inputs = {"x": np.full((1, width), float(value))}
    return ModelCall("doubler", inputs, [output], is_cancelled=is_cancelled)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 30))


async def begin(joined: JoinedCalls, *calls: ModelCall) -> list[asyncio.Task[dict[str, Array]]]:
    tasks = [asyncio.ensure_future(joined(call)) for call in calls]
    await asyncio.sleep(0.01)
    return tasks


def test_who_finds_room_begins_at_once_and_who_comes_meanwhile_is_joined() -> None:
    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=2, rows_max=lambda call: 3)
        tasks = await begin(joined, *(one(n) for n in range(7)))
        assert model.calls == [[0], [1]]
        model.gate.set()
        answers = await asyncio.gather(*tasks)
        assert [answer["y"].tolist() for answer in answers] == [[[2 * n]] for n in range(7)]
        assert model.calls == [[0], [1], [2, 3, 4], [5, 6]]

    run(main())


def test_calls_of_other_forms_stay_apart_and_the_first_to_come_goes_first() -> None:
    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 8)
        calls = [one(0), one(1), one(2, width=2), one(3), one(4, output="z"), one(5, width=2)]
        tasks = await begin(joined, *calls)
        model.gate.set()
        answers = await asyncio.gather(*tasks)
        assert model.calls == [[0], [1, 3], [2, 5], [4]]
        for call, answer in zip(calls, answers, strict=True):
            np.testing.assert_array_equal(answer[call.outputs[0]], 2 * call.inputs["x"])

    run(main())


def test_how_many_are_joined_is_asked_of_the_call() -> None:
    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 4 // call.inputs["x"].shape[1])
        tasks = await begin(joined, one(0), *(one(n, width=2) for n in range(1, 4)))
        model.gate.set()
        await asyncio.gather(*tasks)
        assert model.calls == [[0], [1, 2], [3]]

    run(main())


def test_a_call_that_nobody_waits_for_is_not_made() -> None:
    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 8)
        first, gone, last = await begin(joined, one(0), one(1), one(2))
        gone.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, last)
        assert model.calls == [[0], [2]]

    run(main())


def test_who_gives_up_during_a_call_spoils_nothing() -> None:
    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 8)
        tasks = await begin(joined, one(0), one(1), one(2))
        model.gate.set()
        await tasks[0]
        model.gate.clear()
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        model.gate.set()
        assert (await tasks[2])["y"].tolist() == [[4]]
        assert (await joined(one(7)))["y"].tolist() == [[14]]

    run(main())


def test_an_error_is_that_of_its_own_row_and_the_others_are_answered() -> None:
    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 8)
        tasks = await begin(joined, one(0), one(1), one(-2), one(3))
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert model.calls[:2] == [[0], [1, -2, 3]]
        assert isinstance(answers[2], InvalidArgumentError)
        assert answers[2].message == "negative: [-2.0]"
        assert [answers[n]["y"].tolist() for n in (0, 1, 3)] == [[[0]], [[2]], [[6]]]
        assert (await joined(one(7)))["y"].tolist() == [[14]]  # there is room again

    run(main())


def test_after_an_error_only_those_who_still_wait_are_tried_again_one_after_the_other() -> None:
    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 8)
        tasks = await begin(joined, one(0), one(1), one(-2), one(3))
        second = Doubler()

        async def calls_by_turns(call: ModelCall) -> dict[str, Array]:
            return await (model if len(model.calls) < 2 else second)(call)

        joined._call = calls_by_turns
        model.gate.set()
        await asyncio.sleep(0.01)
        tasks[3].cancel()
        second.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert model.calls == [[0], [1, -2, 3]]
        assert second.calls == [[1], [-2]]
        assert second.most_under_way == 1
        assert [type(answer) for answer in answers[2:]] == [InvalidArgumentError, asyncio.CancelledError]

    run(main())


def test_an_error_that_is_not_the_models_reaches_all_and_frees_the_room() -> None:
    async def broken(call: ModelCall) -> dict[str, Array]:
        raise RuntimeError("broken")

    async def main() -> None:
        joined = JoinedCalls(broken, at_once=1, rows_max=lambda call: 8)
        tasks = await begin(joined, *(one(n) for n in range(3)))
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, RuntimeError)
            assert not isinstance(error, SegmentationError)

    run(main())


def test_calls_whose_callers_gave_up_while_they_waited_are_not_made() -> None:
    async def main() -> None:
        model, cancelled = Doubler(), set[int]()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 3)
        calls = [one(n, is_cancelled=lambda n=n: n in cancelled) for n in range(6)]
        tasks = await begin(joined, *calls)
        cancelled.update({0, 1, 2, 3})  # that of 0 has begun
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert model.calls == [[0], [4, 5]]
        assert [type(answer) for answer in answers] == [dict, *[CancelledError] * 3, dict, dict]
        assert joined.waiting == 0

    run(main())


def test_a_caller_who_cannot_be_asked_whether_it_gave_up_takes_no_other_along() -> None:
    def broken() -> bool:
        raise RuntimeError("broken")

    async def main() -> None:
        model = Doubler()
        joined = JoinedCalls(model, at_once=1, rows_max=lambda call: 8)
        tasks = await begin(joined, one(0), one(1), one(2, is_cancelled=broken), one(3))
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert model.calls == [[0], [1, 3]]
        assert [type(answer) for answer in answers] == [dict, dict, RuntimeError, dict]

    run(main())


def lists_joined(model: Adder, length_max: int = 8, rows_max: int = 1) -> JoinedCalls:
    return JoinedCalls(model, at_once=1, rows_max=lambda call: rows_max, lists={"x", "y"}, length_max=length_max)


def test_calls_about_the_same_subject_share_a_row() -> None:
    async def main() -> None:
        model = Adder()
        joined = lists_joined(model)
        calls = [some([0], 5), some([1], 5), some([2], 7), some([3, 4], 5), some([5], 5)]
        tasks = await begin(joined, *calls)
        model.gate.set()
        answers = await asyncio.gather(*tasks)
        assert model.calls == [[[0]], [[1, 3, 4, 5]], [[2]]]
        for call, answer in zip(calls, answers, strict=True):
            np.testing.assert_array_equal(answer["y"], call.inputs["x"] + call.inputs["shared"])
            np.testing.assert_array_equal(answer["shared"], call.inputs["shared"])

    run(main())


def test_calls_that_want_other_outputs_share_no_row() -> None:
    async def main() -> None:
        model = Adder()
        joined = lists_joined(model)
        calls = [some([n], 5) for n in range(4)]
        calls[2] = replace(calls[2], outputs=["y"])
        tasks = await begin(joined, *calls)
        model.gate.set()
        for call, answer in zip(calls, await asyncio.gather(*tasks), strict=True):
            assert answer.keys() == set(call.outputs)
        assert model.calls == [[[0]], [[1, 3]], [[2]]]

    run(main())


@pytest.mark.parametrize(
    ("calls", "made"),
    [
        ([some([1, 2], 5), some([3, 4], 5), some([6], 5)], [[1, 2, 6], [3, 4]]),  # three at most
        ([some([1, 2, 3, 4], 5), some([6], 5)], [[1, 2, 3, 4], [6]]),  # who brings more goes alone
        ([some([1], 5, subject=None), some([2], 5, subject=None)], [[1], [2]]),
    ],
)
def test_what_does_not_fit_a_row_waits(calls: list[ModelCall], made: list[list[float]]) -> None:
    async def main() -> None:
        model = Adder()
        tasks = await begin(lists_joined(model, length_max=3), some([0], 5), *calls)
        model.gate.set()
        await asyncio.gather(*tasks)
        assert model.calls == [[[0]], *([row] for row in made)]

    run(main())


@pytest.mark.parametrize(("rows_max", "made"), [(3, [[1], [2], [3]]), (2, [[1, 3]])])
def test_calls_are_joined_in_the_way_that_takes_more_along(rows_max: int, made: list[list[float]]) -> None:
    async def main() -> None:
        model = Adder()
        joined = lists_joined(model, rows_max=rows_max)
        tasks = await begin(joined, some([0], 5), some([1], 5), some([2], 7), some([3], 5))
        model.gate.set()
        await asyncio.gather(*tasks)
        assert model.calls[1] == made

    run(main())


@pytest.mark.parametrize(
    ("subjects", "rows_max", "made"),
    [
        # by subject in the order of coming, value n for the n-th call
        ([5, 6, 5, 6, 7], 4, [[[1, 3], [2, 4]], [[5]]]),  # as many as four rows would, in two
        ([5, 6, 5, 6, 5, 5], 4, [[[1, 3, 5, 6]], [[2, 4]]]),
        ([5, 6, 6, 5, 6, 6], 6, [[[1, 4], [2, 3], [5, 6]]]),
        ([5, 5, 6, 6, 6], 5, [[[1], [2], [3], [4], [5]]]),  # more than in any rows of several
        ([5, 6, 6, 6, 6], 4, [[[1], [2], [3], [4]], [[5]]]),  # whoever came first is among them
        ([5, 6, 7, 5, 6, 7], 6, [[[1, 4], [2, 5], [3, 6]]]),
    ],
)
def test_rows_are_shared_if_no_fewer_calls_are_joined_so(
    subjects: list[float], rows_max: int, made: list[list[list[float]]]
) -> None:
    async def main() -> None:
        model = Adder()
        joined = lists_joined(model, rows_max=rows_max)
        calls = [some([n], subject) for n, subject in enumerate([4, *subjects])]
        tasks = await begin(joined, *calls)
        model.gate.set()
        answers = await asyncio.gather(*tasks)
        assert model.calls == [[[0]], *made]
        for call, answer in zip(calls, answers, strict=True):
            np.testing.assert_array_equal(answer["y"], call.inputs["x"] + call.inputs["shared"])
            np.testing.assert_array_equal(answer["shared"], call.inputs["shared"])

    run(main())


def test_an_error_in_a_shared_row_is_that_of_its_own_call() -> None:
    async def main() -> None:
        model = Adder()
        tasks = await begin(lists_joined(model), some([0], 5), some([1], 5), some([-2], 5), some([3, 4], 5))
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[2], InvalidArgumentError)
        assert answers[2].message == "negative: [[-2]]"
        assert [answers[n]["y"].tolist() for n in (0, 1, 3)] == [[[5]], [[6]], [[8, 9]]]

    run(main())


def test_many_calls_in_any_order_get_their_own_answers_in_few_calls() -> None:
    async def main() -> None:
        model = Doubler()
        model.gate.set()
        joined = JoinedCalls(model, at_once=3, rows_max=lambda call: 8)
        rng = np.random.default_rng(0)

        async def ask(value: int) -> None:
            await asyncio.sleep(float(rng.random()) * 0.02)
            width = int(rng.integers(1, 3))
            answer = await joined(one(value, width=width))
            assert answer["y"].tolist() == [[2 * value] * width]

        began_s = time.monotonic()
        await asyncio.gather(*(ask(value) for value in range(500)))
        assert time.monotonic() - began_s < 20
        assert model.most_under_way <= 3
        assert sorted(value for call in model.calls for value in call) == list(range(500))
        assert max(map(len, model.calls)) <= 8

    run(main())
