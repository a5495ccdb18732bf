"""Reading: how the samples of an image become numbers in [0, 1], where the image itself does not say."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ImageColor

from vizcnn.errors import ParameterError

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the samples of an image are read.

    channels: of the network that the image is for. Four samples of a pixel are red, green, blue and opacity, and two in
        a file grey and opacity; for a network of that many channels they are these channels instead. None where no
        network is known.
    white: the value of white in images of more than 8 bits per sample; None for what the image says.
    background: the colour (any name Pillow knows) that shows through transparent parts.
    """

    channels: int | None = None
    white: float | None = None
    background: str = "white"

    def __post_init__(self) -> None:
        try:
            parse_colour(self.background)
        except ValueError as error:
            raise ParameterError(
                f"the background is a colour, such as white or #7f7f7f, got {self.background!r}"
            ) from error

    @property
    def colour(self) -> Colour:
        """The background as RGB in [0, 1]."""
        return parse_colour(self.background)

    def keeps(self, samples: int) -> bool:
        """Whether an image with so many samples per pixel is kept as it is stored, its last sample being no opacity."""
        return samples == self.channels and samples not in (1, 3)


def parse_colour(text: str) -> Colour:
    """RGB in [0, 1] of a colour as Pillow names it: `grey`, `#7f7f7f`, `rgb(10%,20%,30%)`. Raises ValueError."""
    red, green, blue = ImageColor.getcolor(text, "RGB")  # type: ignore[misc]
    return red / 255, green / 255, blue / 255


PLAIN = Reading()
"""What an image says of itself."""
