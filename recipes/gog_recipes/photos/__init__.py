"""The photo world: datasets of real photographs in which several things of a class can be told apart by their pixels only.

Cut-outs with names in many languages (those of tuxpaint-stamps-default) are put on photographs. So boxes are exact and
licences known. Nothing of it is part of gog: `make photos` fetches the packages, and what it makes stays on the machine.
"""
