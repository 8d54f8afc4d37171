"""The benchmarks on disk: each in its own format and in the release's prepared one, and the synthetic scenes.

>>> from ssp_sam.evaluation.datasets import BENCHMARKS
>>> dataset = BENCHMARKS["refcoco"].open("val", "data")  # doctest: +SKIP
>>> dataset[0].samples[0].phrase, dataset[0].samples[0].truth().shape  # doctest: +SKIP

Imports no torch.
"""

from ssp_sam.evaluation.datasets.benchmarks import BENCHMARKS, FORMATS, Benchmark
from ssp_sam.evaluation.datasets.samples import Dataset, DatasetError, ImageSamples, ListedDataset, Sample

__all__ = [
    "BENCHMARKS",
    "FORMATS",
    "Benchmark",
    "Dataset",
    "DatasetError",
    "ImageSamples",
    "ListedDataset",
    "Sample",
]
