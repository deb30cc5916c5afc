"""Arms of the diversity experiment as data: what may differ from one training episode to the next.

An arm is four banks (topologies, missions, phase starts, reward tables), each with probabilities over its entries, and
a price of Restore. All arms of an experiment are stacked into one pytree, so that one compiled program trains any set
of them. `purecc4 arms` prints them all. An arm of your own is a few lines:

    from purecc4 import arms
    arms.ARMS["mine"] = arms.ArmSpec(missions=((1, 1, 1), (4, 1, 1)))
"""

from purecc4.arms.banks import MISSIONS, PHASE_STARTS, PUBLISHED_TOPOLOGIES, REWARD_TABLES
from purecc4.arms.sampling import Arm, Bank, build, reward_table, sample
from purecc4.arms.spec import ARMS, BANKS, GENERATE, THIRDS, ArmSpec, Plain

__all__ = [
    "ARMS",
    "BANKS",
    "GENERATE",
    "MISSIONS",
    "PHASE_STARTS",
    "PUBLISHED_TOPOLOGIES",
    "REWARD_TABLES",
    "THIRDS",
    "Arm",
    "ArmSpec",
    "Bank",
    "Plain",
    "build",
    "reward_table",
    "sample",
]
