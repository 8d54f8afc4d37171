import pickle
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest

from ssp_sam.evaluation.datasets import BENCHMARKS, DatasetError
from ssp_sam.evaluation.datasets.pickles import load_plain_pickle

PLAIN = [
    {"text": "né", "number": 3, "big": 2**70, "real": 0.5, "yes": True, "none": None, "pair": (1, "a")},
    {"set": {1, 2}, "frozen": frozenset("ab"), "bytes": b"\xff\x00", "complex": 1j, "ordered": OrderedDict(a=1)},
]


RAN: list[int] = []


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps(PLAIN, protocol=protocol)
    assert load_plain_pickle(write(tmp_path / "refs.p", data)) == (PLAIN, data)


def test_python_2_pickles(tmp_path: Path) -> None:
    # What Python 2 writes of [{'sent': 'caf\xe9', u'split': u'val', 'n': 5L, 'ids': set([1])}] in protocol 2.
    data = (
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x04caf\xe9q\x03X\x05\x00\x00\x00splitq\x04X\x03\x00\x00\x00valq\x05"
        b"U\x01nq\x06\x8a\x01\x05U\x03idsq\x07c__builtin__\nset\nq\x08]q\tK\x01a\x85q\nRq\x0bua."
    )
    assert load_plain_pickle(write(tmp_path / "refs.p", data))[0] == [
        {"sent": "café", "split": "val", "n": 5, "ids": {1}}
    ]


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (eval, ("1 / 0",), "(builtins|__builtin__).eval"),
        (RAN.append, (1,), "(builtins|__builtin__).getattr"),
        (getattr, ("", "join"), "(builtins|__builtin__).getattr"),
        (Counter, ((),), "collections.Counter"),
        (print, ("hello",), "(builtins|__builtin__).print"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_else_is_refused_by_name(
    function: Any, arguments: tuple[Any, ...], name: str, protocol: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "refs.p", pickle.dumps([Malicious(function, *arguments)], protocol=protocol))
    with pytest.raises(DatasetError, match=f"refs.p: the pickle asks for {name}, which is refused"):
        load_plain_pickle(path)
    assert not RAN


def test_dotted_names_and_other_encodings_are_refused(tmp_path: Path) -> None:
    dotted = b"\x80\x04\x8c\x08builtins\x8c\x0dstr.__class__\x93."
    with pytest.raises(DatasetError, match=r"builtins.str.__class__"):
        load_plain_pickle(write(tmp_path / "refs.p", dotted))
    zipped = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R."
    with pytest.raises(DatasetError, match="bytes in 'zip'"):
        load_plain_pickle(write(tmp_path / "refs.p", zipped))


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80\x02]q\x00}q\x01(U\x04", b"\x80\x02P1\n.", b"."])
def test_broken_pickles_are_named(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"refs.p is a broken pickle"):
        load_plain_pickle(write(tmp_path / "refs.p", data))


def test_a_benchmark_with_a_malicious_pickle(tmp_path: Path) -> None:
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco" / "instances.json").write_text("{}")
    write(tmp_path / "refcoco" / "refs(unc).p", pickle.dumps(Malicious(eval, "1"), protocol=2))
    with pytest.raises(DatasetError, match=r"refs\(unc\).p: the pickle asks for"):
        BENCHMARKS["refcoco"].open("val", tmp_path)
