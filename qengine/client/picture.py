"""A picture of the sky: rows per square degree in Mollweide's projection, with grid, names of lines and a colour bar.

Right ascension increases to the left. Everything is painted twice as large as it is shown and then made smaller, which smooths
lines and letters; each pixel of the projection asks the map for its own value, so the map is never interpolated. Places without
rows have no colour of the bar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from qengine.sky.healpix import pixels_of
from qengine.sky.mollweide import from_plane, to_plane

Float64Array = NDArray[np.float64]

_SCALE = 2
_WIDTH, _HEIGHT = 1600, 980
_MAP_WIDTH = 1440
_MAP_TOP = 110
_CENTER_RA = 180.0
_INK, _PALE, _PAPER, _NOTHING, _GRID = (28, 30, 38), (96, 100, 112), (255, 255, 255), (226, 228, 234), (255, 255, 255, 110)
_GRID_ON_NOTHING = (120, 124, 136, 130)
# dark blue to yellow, as light rises evenly; equal steps look equal, in grey and to the colour-blind too
_COLOURS = (
    (43, 16, 78), (67, 35, 118), (63, 73, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121), (110, 206, 88),
    (181, 222, 43), (253, 231, 37),
)  # fmt: skip
_LOG_FROM = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What the picture says of the table: its name, and a line below it."""

    title: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From densities to [0, 1]: by logarithm where they differ much."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def of(cls, density: Float64Array) -> Scale:
        """Return the scale of a map: from the sparsest place that has rows to the densest, but for one in a thousand at both
        ends."""
        filled = density[density > 0]
        if not len(filled):
            return cls(low=0.0, high=1.0, is_log=False)
        low, high = (float(each) for each in np.quantile(filled, [0.001, 0.999]))
        if high >= _LOG_FROM * low:
            return cls(low=low, high=high, is_log=True)
        return cls(low=0.0, high=high, is_log=False)

    def place(self, density: Float64Array) -> Float64Array:
        """Return where on the bar densities are."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.is_log:
                found = (np.log(density) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
            else:
                found = (density - self.low) / (self.high - self.low)
        return np.clip(found, 0.0, 1.0)

    def ticks(self) -> list[float]:
        """Return the densities that the bar names."""
        if not self.is_log:
            step = _round_step((self.high - self.low) / 6)
            return [step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if math.log10(self.high / self.low) < 3.5 else (1,)
        return [f * 10.0**d for d in decades for f in factors if self.low <= f * 10.0**d <= self.high]


def draw_sky(density: Float64Array, caption: Caption, path: Path) -> None:
    """Write the picture of a NESTED full-sky map of rows per square degree as PNG."""
    scale = Scale.of(density)
    image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), _PAPER)
    image.paste(Image.fromarray(_projected(density, scale)), (_left(), _MAP_TOP * _SCALE))
    brush = ImageDraw.Draw(image, "RGBA")
    _draw_grid(brush)
    _draw_caption(brush, caption)
    _draw_bar(image, brush, scale)
    image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).save(path, format="PNG", optimize=True)


def _left() -> int:
    return (_WIDTH - _MAP_WIDTH) * _SCALE // 2


def _projected(density: Float64Array, scale: Scale) -> NDArray[np.uint8]:
    width = _MAP_WIDTH * _SCALE
    height = width // 2
    x = (np.arange(width) + 0.5) / width * 4 - 2
    y = 1 - (np.arange(height) + 0.5) / height * 2
    ra, dec = from_plane(x[None, :], y[:, None], center_ra=_CENTER_RA)
    is_sky = np.isfinite(ra)
    colours = np.empty((height, width, 3), np.uint8)
    colours[:] = _PAPER
    values = density[pixels_of(len(density), ra[is_sky], dec[is_sky])]
    shown = _coloured(scale.place(values))
    shown[values <= 0] = _NOTHING
    colours[is_sky] = shown
    return colours


def _coloured(place: Float64Array) -> NDArray[np.uint8]:
    table = np.array(_COLOURS, np.float64)
    at = np.linspace(0, 1, len(table))
    lookup = np.stack([np.interp(np.linspace(0, 1, 1024), at, table[:, channel]) for channel in range(3)], axis=1)
    found: NDArray[np.uint8] = np.round(lookup).astype(np.uint8)[np.round(place * 1023).astype(np.int64)]
    return found


def _pixel(x: Float64Array, y: Float64Array) -> list[tuple[float, float]]:
    width = _MAP_WIDTH * _SCALE
    across = _left() + (x + 2) / 4 * width
    down = _MAP_TOP * _SCALE + (1 - y) / 2 * (width / 2)
    return list(zip(across.tolist(), down.tolist(), strict=True))


def _draw_grid(brush: ImageDraw.ImageDraw) -> None:
    fine = np.linspace(-89.9, 89.9, 400)
    for ra in range(0, 360, 30):
        if ra != (_CENTER_RA + 180) % 360:
            line = _pixel(*to_plane(np.full_like(fine, ra), fine, center_ra=_CENTER_RA))
            _draw_line(brush, line)
    around = np.linspace(_CENTER_RA - 179.999, _CENTER_RA + 179.999, 400)
    for dec in range(-60, 90, 30):
        _draw_line(brush, _pixel(*to_plane(around, np.full_like(around, dec), center_ra=_CENTER_RA)))
    turn = np.linspace(0, 2 * np.pi, 1000)
    brush.line(_pixel(2 * np.cos(turn), np.sin(turn)), fill=_INK, width=2 * _SCALE)
    for dec in range(-60, 90, 30):
        # the border leans at high declinations, so names stand a little above or below their line there
        lift = dec / 90 * 14 * _SCALE
        for side, anchor in ((-1, "lm"), (1, "rm")):
            [(at, down)] = _pixel(*to_plane(np.array([_CENTER_RA + side * 179.999]), np.array([dec]), center_ra=_CENTER_RA))
            brush.text((at - side * 12 * _SCALE, down - lift), _signed(dec), font=_font(17), fill=_INK, anchor=anchor)
    for ra in range(30, 360, 30):
        [place] = _pixel(*to_plane(np.array([float(ra)]), np.array([0.0]), center_ra=_CENTER_RA))
        brush.text(
            (place[0] + 5 * _SCALE, place[1] - 5 * _SCALE), f"{ra}°", font=_font(17), fill=_INK, anchor="ls",
            stroke_width=2 * _SCALE, stroke_fill=_PAPER,
        )  # fmt: skip


def _draw_line(brush: ImageDraw.ImageDraw, line: list[tuple[float, float]]) -> None:
    # dark below light: seen on every colour
    brush.line(line, fill=_GRID_ON_NOTHING, width=3)
    brush.line(line, fill=_GRID, width=2)


def _draw_caption(brush: ImageDraw.ImageDraw, caption: Caption) -> None:
    brush.text((_left(), 28 * _SCALE), caption.title, font=_font(30), fill=_INK, anchor="lt")
    brush.text((_left(), 68 * _SCALE), caption.about, font=_font(18), fill=_PALE, anchor="lt")


def _draw_bar(image: Image.Image, brush: ImageDraw.ImageDraw, scale: Scale) -> None:
    left, width, height = 360 * _SCALE, 880 * _SCALE, 18 * _SCALE
    top = (_MAP_TOP + _MAP_WIDTH // 2 + 44) * _SCALE
    strip = _coloured(np.linspace(0, 1, width))
    image.paste(Image.fromarray(np.broadcast_to(strip, (height, width, 3)).copy()), (left, top))
    brush.rectangle((left, top, left + width, top + height), outline=_INK, width=_SCALE)
    for tick in scale.ticks():
        at = left + float(scale.place(np.array([tick]))[0]) * width
        brush.line((at, top + height, at, top + height + 6 * _SCALE), fill=_INK, width=_SCALE)
        brush.text((at, top + height + 9 * _SCALE), short(tick), font=_font(17), fill=_INK, anchor="mt")
    word = "rows per square degree" + (", logarithmic" if scale.is_log else "")
    brush.text((left + width / 2, top + height + 36 * _SCALE), word, font=_font(18), fill=_PALE, anchor="mt")
    side = 18 * _SCALE
    start = left - 150 * _SCALE
    brush.rectangle((start, top, start + side, top + side), fill=_NOTHING, outline=_INK, width=_SCALE)
    brush.text((start + side + 8 * _SCALE, top + side / 2), "no rows", font=_font(17), fill=_INK, anchor="lm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _SCALE)


def _round_step(step: float) -> float:
    """Return the next larger 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next((f * power for f in (1, 2, 5) if f * power >= step), 10 * power)


def _signed(dec: int) -> str:
    return f"{dec:+d}°" if dec else "0°"


def short(value: float) -> str:
    """Return a number as people write it on a scale: 0.5, 20, 5k, 1.5M."""
    for size, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{word}"
    return f"{value:g}"
