# SPDX-License-Identifier: Apache-2.0
"""Reads two scrapes of one machine with Prometheus' own parser, and compares them.

Prints `NAME{LABELS} VALUE` of each sample of the second, without buckets.
"""

import sys

from prometheus_client.parser import text_string_to_metric_families


def read(path):
    samples = {}
    for family in text_string_to_metric_families(open(path, encoding="utf-8").read()):
        assert family.documentation, f"{family.name} has no help"
        assert family.type in ("counter", "gauge", "histogram"), f"{family.name}: {family.type}"
        assert family.samples, f"{family.name} has no samples"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} is there twice"
            samples[key] = (family.type, sample.value)
    return samples


def check_histograms(samples):
    series = {}
    for (name, labels), (kind, value) in samples.items():
        if kind == "histogram" and name.endswith("_bucket"):
            rest = tuple(label for label in labels if label[0] != "le")
            bound = float(dict(labels)["le"])
            series.setdefault((name[: -len("_bucket")], rest), []).append((bound, value))
    assert series, "there is no histogram"
    for (name, labels), buckets in series.items():
        counts = [value for _, value in sorted(buckets)]
        assert counts == sorted(counts), f"{name} {labels} is not cumulative"
        assert sorted(buckets)[-1][0] == float("inf")
        assert counts[-1] == samples[(name + "_count", labels)][1]
        assert samples[(name + "_sum", labels)][1] >= 0


first, second = read(sys.argv[1]), read(sys.argv[2])
check_histograms(first)
check_histograms(second)
assert first.keys() == second.keys(), first.keys() ^ second.keys()
for key, (kind, value) in first.items():
    # A process that is started anew begins at zero.
    if kind != "gauge" and not key[0].startswith("bulkhead_process_"):
        assert second[key][1] >= value, f"{key} went back"
for (name, labels), (kind, value) in second.items():
    if not name.endswith("_bucket"):
        text = ",".join(f'{label}="{content}"' for label, content in labels)
        print(f"{name}{{{text}}} {value:.17g}")
