"""Figures of speed and size: of this machine, of a card that is not there, and against another checkout."""
