"""Arms of the diversity experiment as data.

An arm is a training condition: it defines what is sampled at the start of each episode. It consists of four banks
(topologies, missions, phase starts, reward tables) with probabilities over their entries, and the cost of Restore.
Arms are stacked into one pytree, so one compiled program trains any set of them. `purecc4 arms` prints them. To add
your own:

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
