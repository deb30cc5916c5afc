"""Kernels, memory traffic and FLOPs of a program compiled for a GPU, parsed from its HLO text."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = ("loop", "reduction", "copy", "product", "sort", "other")
"""Kinds of kernels. `product` is a matrix product, `other` any other library call."""
_NO_KERNEL = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier"),
    *("partition-id", "replica-id", "copy-done", "async-done", "while", "call", "async-start", "conditional"),
}
_COPIES = {"copy", "copy-start", "dynamic-update-slice", "slice", "dynamic-slice", "transpose"}
_SLICES = {"slice", "dynamic-slice", "gather"}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    """Shape as written, without its layout."""
    op: str
    operands: tuple[str, ...]
    attributes: str
    """Text after the operands."""
    is_root: bool

    def named(self, attribute: str) -> str | None:
        """Value of an attribute that is a word or a list of numbers; None if it is missing."""
        found = re.search(rf"\b{attribute}=(?:%?([\w.\-]+)|\{{([\d,]*)\}})", self.attributes)
        return found and (found.group(1) or found.group(2) or "")

    @property
    def trips(self) -> int:
        """Trip count of a loop; 1 if unknown to the compiler."""
        found = re.search(r'known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found.group(1)) if found else 1


@dataclass
class Cost:
    """Cost of running a computation once, loops included."""

    kernels: Counter = field(default_factory=Counter)
    """Number of kernels by kind."""
    bytes: float = 0
    """Bytes read and written by kernels, each array once per kernel. Caches of the GPU may serve some of it."""
    flops: float = 0
    """FLOPs of matrix products. A multiply-add counts as two."""

    @property
    def launches(self) -> int:
        return self.kernels.total()

    def add(self, other: "Cost", times: int = 1) -> None:
        """Add the cost of another computation, run `times` times."""
        self.kernels.update({kind: n * times for kind, n in other.kernels.items()})
        self.bytes += other.bytes * times
        self.flops += other.flops * times


@dataclass(frozen=True)
class Loop:
    """A loop of the program. Its body runs `trips` times each time the loop is reached."""

    trips: int
    body: str
    inside: str | None
    """Body of the enclosing loop."""


class Program:
    """The computations of a compiled module."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self.computations.setdefault(head.group(2), {})
                self.entry = head.group(2) if head.group(1) else getattr(self, "entry", "")
            elif found := _INSTRUCTION.match(line):
                instruction = _instruction(*found.groups())
                current[instruction.name] = instruction

    def cost(self, computation: str | None = None) -> Cost:
        """Cost of the whole program, or of a computation such as the body of a loop."""
        total = Cost()
        for instruction in self.computations[computation or self.entry].values():
            if instruction.op == "while":
                total.add(self.cost(instruction.named("body")), instruction.trips)
            elif instruction.op in ("call", "async-start"):
                total.add(self.cost(instruction.named("calls") or instruction.named("to_apply")))
            elif instruction.op not in _NO_KERNEL:
                total.kernels[self.kind(instruction)] += 1
                total.bytes += self._bytes(computation or self.entry, instruction)
                total.flops += self._flops(computation or self.entry, instruction)
        return total

    def loops(self, computation: str | None = None) -> Iterator[Loop]:
        """Iterate over all loops, outer before inner ones."""
        for instruction in self.computations[computation or self.entry].values():
            if instruction.op == "while":
                body = instruction.named("body")
                yield Loop(instruction.trips, body, computation)
                yield from self.loops(body)

    def kind(self, instruction: Instruction) -> str:
        """Classify a kernel as one of KINDS."""
        inside = {x.op for x in self._called(instruction).values()} or {instruction.op}
        if inside & {"dot", "convolution"} or re.search(r"gemm|cublas|cudnn", instruction.attributes):
            return "product"
        if "sort" in inside or "RadixSort" in instruction.attributes:
            return "sort"
        if instruction.op == "custom-call":
            return "other"
        if inside - _NO_KERNEL <= _COPIES:
            return "copy"
        is_loop = instruction.named("kind") == "kLoop"
        return "loop" if is_loop or not any(op.startswith("reduce") for op in inside) else "reduction"

    def _called(self, instruction: Instruction) -> dict[str, Instruction]:
        """The computation inside a fusion; empty for any other instruction."""
        return self.computations[instruction.named("calls")] if instruction.op == "fusion" else {}

    def _bytes(self, computation: str, instruction: Instruction) -> int:
        """Bytes that a kernel reads and writes. Slices and in-place updates count only the affected elements."""
        inside, shapes = self._called(instruction), self.computations[computation]
        if not inside:
            return _size(instruction.shape) + sum(_size(shapes[x].shape) for x in instruction.operands if x in shapes)
        users: dict[str, list[Instruction]] = {}
        for user in inside.values():
            for operand in user.operands:
                users.setdefault(operand, []).append(user)
        parameters = [x for x in inside.values() if x.op == "parameter"]
        return sum(_read(x, users) for x in parameters) + sum(_written(x, inside) for x in inside.values() if x.is_root)

    def _flops(self, computation: str, instruction: Instruction) -> int:
        """FLOPs of the matrix products in a kernel or library call."""
        inside = self._called(instruction)
        dots = [x for x in inside.values() if x.op == "dot"]
        if instruction.op in ("dot", "custom-call") and self.kind(instruction) == "product":
            dots, inside = [instruction], self.computations[computation]
        return sum(_dot_flops(x, inside) for x in dots)


def _instruction(root: str | None, name: str, shape: str, op: str, rest: str) -> Instruction:
    """Build an instruction from the parts of its line."""
    operands, _, attributes = rest.partition(")")
    return Instruction(name, shape, op, tuple(re.findall(r"%([\w.\-]+)", operands)), attributes, bool(root))


def _size(shape: str) -> int:
    """Bytes of all arrays in a shape."""
    return sum(_item_bytes(kind) * math.prod(_numbers(sizes)) for kind, sizes in _ARRAY.findall(shape))


def _item_bytes(kind: str) -> int:
    """Bytes per element of an HLO type such as pred, u8, bf16 or f32."""
    bits = re.search(r"\d+", kind)
    return max(int(bits.group()) // 8, 1) if bits else int(kind == "pred")


def _numbers(text: str) -> list[int]:
    return [int(x) for x in text.split(",") if x]


def _read(array: Instruction, users: dict[str, list[Instruction]]) -> int:
    """Bytes that a fusion reads from a parameter."""
    whole, taken = _size(array.shape), 0
    for user in users.get(array.name, []):
        is_first = user.operands[0] == array.name
        if user.op == "bitcast":
            taken += _read(user, users)
        elif user.op in _SLICES and is_first:
            taken += _size(user.shape)
        elif not (user.op == "dynamic-update-slice" and is_first):
            taken += whole
    return min(taken, whole)


def _written(root: Instruction, inside: dict[str, Instruction]) -> int:
    """Bytes that a fusion writes. An in-place update writes only the new elements."""
    if root.op == "tuple":
        return sum(_written(inside[x], inside) for x in root.operands)
    if root.op == "bitcast" and root.operands[0] in inside:
        return _written(inside[root.operands[0]], inside)
    return _size(inside[root.operands[1]].shape if root.op == "dynamic-update-slice" else root.shape)


def _dot_flops(dot: Instruction, inside: dict[str, Instruction]) -> int:
    """FLOPs of a dot: two per element of the result and of the contracted axes."""
    summed = dot.named("lhs_contracting_dims")
    if summed is None:
        found = re.search(r'"lhs_contracting_dimensions":\[([\d",]*)\]', dot.attributes)
        summed = found.group(1).replace('"', "") if found else ""
    factor = _numbers(_ARRAY.search(inside[dot.operands[0]].shape).group(2))
    product = _numbers(_ARRAY.search(dot.shape).group(2))
    return 2 * math.prod(product) * math.prod(factor[axis] for axis in _numbers(summed))
