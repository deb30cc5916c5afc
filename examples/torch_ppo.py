"""PPO in PyTorch for the five blue agents, with one shared network, on 48 environments of purecc4 at once.

    python examples/torch_ppo.py

The same choices as algos/ippo.py: invalid actions are masked, a rollout is one whole episode whose end is terminal, all
agents get the team's reward. `--simulator cyborg` runs the same page on CybORG instead (docs/performance.md).
"""

import argparse
import time

import torch
from torch import nn
from torch.distributions import Categorical

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--simulator", choices=["purecc4", "cyborg"], default="purecc4")
parser.add_argument("--num-envs", type=int, default=48)
parser.add_argument("--num-steps", type=int, default=500, help="length of an episode, which is a rollout")
parser.add_argument("--updates", type=int, default=20)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--learning-rate", type=float, default=3e-4)
parser.add_argument("--gamma", type=float, default=0.99)
parser.add_argument("--gae-lambda", type=float, default=0.95)
parser.add_argument("--clip-eps", type=float, default=0.2)
parser.add_argument("--ent-coef", type=float, default=0.01)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--num-minibatches", type=int, default=16)
parser.add_argument("--hidden", type=int, default=256)


def make_env(args):
    """A vector environment whose arrays are tensors, without a copy."""
    if args.simulator == "cyborg":
        from on_cyborg import CyborgVector as Vector
    else:
        from purecc4.adapters.vector import CC4Vector as Vector
    return Vector(args.num_envs, num_steps=args.num_steps, from_dlpack=torch.from_dlpack)


def layer(inputs, outputs, gain=2**0.5):
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class ActorCritic(nn.Module):
    """Two tanh layers, then action logits and a value."""

    def __init__(self, num_obs, num_actions, hidden):
        super().__init__()
        self.body = nn.Sequential(layer(num_obs, hidden), nn.Tanh(), layer(hidden, hidden), nn.Tanh())
        self.actor, self.critic = layer(hidden, num_actions, 0.01), layer(hidden, 1, 1.0)

    def forward(self, obs, mask):
        x = self.body(obs.float())
        return Categorical(logits=self.actor(x).masked_fill(~mask, -1e9)), self.critic(x).squeeze(-1)


@torch.no_grad()
def rollout(env, network, num_steps):
    """Play one episode in every environment: obs, action, log_prob, value [step, env, agent], reward [step, env]."""
    obs, infos = env.reset()
    mask, steps = infos["action_mask"], []  # masks are constant in an episode
    for _ in range(num_steps):
        policy, value = network(obs, mask)
        action = policy.sample()
        after, reward, _, _, _ = env.step(action)
        steps.append((obs, action, policy.log_prob(action), value, reward))
        obs = after
    return mask, *map(torch.stack, zip(*steps, strict=True))


def discounted(x, factor):
    """Sums over the future, discounted by a factor per step."""
    total, sums = torch.zeros_like(x[0]), torch.empty_like(x)
    for t in reversed(range(len(x))):
        total = sums[t] = x[t] + factor * total
    return sums


def learn(network, optimiser, args, mask, obs, action, log_prob, value, reward):
    """Update the network with the samples of a rollout; a sample is one agent in one step."""
    # rewards are divided by the deviation of the discounted returns
    reward = (reward / (discounted(reward, args.gamma).std() + 1e-8))[..., None]
    after = torch.cat([value[1:], torch.zeros_like(value[:1])])
    advantage = discounted(reward + args.gamma * after - value, args.gamma * args.gae_lambda)
    target = advantage + value
    samples = [x.flatten(0, 2) for x in (obs, action, log_prob, advantage, target)]
    mask = mask.flatten(0, 1)
    for _ in range(args.epochs):
        for index in torch.randperm(len(samples[0])).chunk(args.num_minibatches):
            obs, action, log_prob, advantage, target = (x[index] for x in samples)
            policy, value = network(obs, mask[index % len(mask)])
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            ratio = (policy.log_prob(action) - log_prob).exp()
            clipped = ratio.clamp(1 - args.clip_eps, 1 + args.clip_eps)
            policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
            value_loss = (value - target).square().mean() / 2
            loss = policy_loss + 0.5 * value_loss - args.ent_coef * policy.entropy().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimiser.step()


def main():
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    env = make_env(args)
    obs, infos = env.reset(seed=args.seed)
    network = ActorCritic(obs.shape[-1], infos["action_mask"].shape[-1], args.hidden)
    optimiser = torch.optim.Adam(network.parameters(), lr=args.learning_rate, eps=1e-5)
    for update in range(args.updates):
        start = time.perf_counter()
        mask, *traj = rollout(env, network, args.num_steps)
        played = time.perf_counter()
        learn(network, optimiser, args, mask, *traj)
        end, steps = time.perf_counter(), args.num_envs * args.num_steps
        print(
            f"update {update + 1}: return {traj[-1].sum(0).mean():.0f}, {steps / (end - start):.0f} steps per second, "
            f"{steps / (played - start):.0f} in the rollout",
            flush=True,
        )


if __name__ == "__main__":
    main()
