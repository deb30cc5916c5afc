"""Environments of purecc4, imported as `purecc4.envs`; in a checkout `envs` is the same package."""

import sys

if __name__ == "envs":
    import importlib
    import pkgutil

    package = importlib.import_module("purecc4.envs")
    for module in pkgutil.walk_packages(package.__path__, "purecc4.envs."):
        importlib.import_module(module.name)
    sys.modules |= {name[8:]: module for name, module in sys.modules.items() if name.startswith("purecc4.envs")}
