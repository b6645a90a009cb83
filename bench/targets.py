"""What the benchmarks must reach, all in one place.

Stated for 2e7 objects (and 1e7 rows of each side of `join_keys`), two workers of one thread beside bare DuckDB with two threads,
medians of the same run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """At most `factor` times bare plus `plus_ms`. `engine` says whom it is for (everybody if empty); with `group` the factor is of
    that group on the same engine instead of bare."""

    factor: float = 0.0
    plus_ms: float = 0.0
    engine: str = ""
    group: str = ""

    def is_met(self, ms: float, base_ms: float) -> bool:
        return ms <= self.factor * base_ms + self.plus_ms

    def __str__(self) -> str:
        parts = [f"{self.factor:g}x{' ' + self.group if self.group else ''}"] if self.factor else []
        return " + ".join([*parts, f"{self.plus_ms:g} ms"] if self.plus_ms else parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A figure of a benchmark (`extra_info`) is at least `least` and at most `most`; bare engines are not judged."""

    figure: str
    least: float = float("-inf")
    most: float = float("inf")

    def is_met(self, value: float) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        bounds = [f">= {self.least:,g}"] if self.least > float("-inf") else []
        return f"{self.figure} " + " and ".join([*bounds, *([f"<= {self.most:,g}"] if self.most < float("inf") else [])])


TARGETS: dict[str, tuple[Target, ...]] = {
    "aggregate_narrow": (Target(factor=1.10),),
    "aggregate_narrow_1e8": (Target(factor=1.10),),
    "groups_1e6": (Target(factor=1.5),),
    "join_keys": (Target(factor=2.5),),
    "cone_0.01667": (Target(factor=2, plus_ms=6, engine="qengine"), Target(factor=2, plus_ms=11, engine="url")),
    "key_1": (Target(factor=2, plus_ms=6, engine="qengine"), Target(factor=2, plus_ms=11, engine="url")),
    "key_2700_field": (Target(factor=10, group="key_1"),),
    "key_2700": (Target(factor=1.1),),
    "join_children_1percent": (Target(factor=1.0),),
    "export": (Target(factor=2.5),),  # 0.4 of the rate
    "pairs_sky_2arcsec": (Target(factor=1.3),),
    "load_hats": (Target(factor=0.25),),
    "read_wide": (Target(plus_ms=2000),),
    "plan_cone": (Target(plus_ms=20),),
    "plan_full_sky": (Target(plus_ms=1000),),
}

LIMITS: dict[str, tuple[Limit, ...]] = {
    "pairs_sky_2arcsec": (Limit(figure="rows_per_s_core", least=2_500_000),),
    "crossmatch_1arcsec": (Limit(figure="rows_per_s_core", least=5_000_000),),
    "load": (Limit(figure="rows_per_core_s", least=500_000), Limit(figure="peak_mb", most=6144)),
    "load_children": (Limit(figure="rows_per_core_s", least=700_000), Limit(figure="peak_mb", most=6144)),
    "load_wide": (Limit(figure="mb_per_core_s", least=60), Limit(figure="peak_mb", most=6144)),
    "publish_1e5_parts": (Limit(figure="published_s", most=5), Limit(figure="reader_s", most=1)),
    "append_local": (Limit(figure="share_of_wall", most=0.05),),
    "append_scattered": (Limit(figure="share_of_wall", most=0.6),),
    "export_memory": (Limit(figure="peak_mb", most=1024),),
}
