"""Stand-ins of CybORG, on which a submission runs without it."""

import importlib.util
import sys
import types
from contextlib import contextmanager


class BaseAgent:
    def __init__(self, name, np_random=None):
        self.name = name


class Wrapper:
    """A wrapper without an environment. Its masks are those of one scenario."""

    masks = None
    """[blue action]"""

    def __init__(self, env, pad_spaces):
        assert pad_spaces
        self.env = env

    def action_mask(self, agent):
        return self.masks[int(agent[-1])].tolist()

    def reset(self, *args, **kwargs):
        return "observations", "infos"


@contextmanager
def cyborg(**wrappers):
    """Modules of CybORG with these wrappers. Afterwards all is as before, and no exported folder is imported."""
    contents = {
        "CybORG": {"CybORG": object},
        "CybORG.Agents": {"BaseAgent": BaseAgent},
        "CybORG.Agents.Wrappers": {"EnterpriseMAE": Wrapper, "BlueFixedActionWrapper": Wrapper} | wrappers,
    }
    before, path = dict(sys.modules), list(sys.path)
    for name, content in contents.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("policy", "CybORG"):
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in contents if name in before})


def submission(folder):
    """The submission of an exported folder, as the challenge imports it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "policy"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("submission", folder / "submission.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Submission
