"""A drawn world of animals, with every truth known and a knob for everything that makes localization hard."""

from wsolnb.data.critters.world import World as World
