"""The bench: rejected settings, costs of compiled programs, GPU specifications, and comparison of two checkouts."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from purecc4.bench import against, bench, gpu, hlo, target
from purecc4.bench.measure import Bench, Seconds, aligned
from purecc4.errors import UserError

ROOT = Path(__file__).parents[2]
HAS_CUDA_PLUGIN = any("cuda" in plugin.name for plugin in importlib.metadata.entry_points(group="jax_plugins"))

PROGRAM = """
HloModule update

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused_record (p0: f32[500,8], p1: f32[8], p2: s32[]) -> f32[500,8] {
  %p0 = f32[500,8]{1,0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %p2 = s32[] parameter(2)
  %row = f32[1,8]{1,0} bitcast(%p1)
  ROOT %update = f32[500,8]{1,0} dynamic-update-slice(%p0, %row, %p2, %p2)
}

%fused_take (p0.1: f32[500,8], p1.1: s32[]) -> f32[8] {
  %p0.1 = f32[500,8]{1,0} parameter(0)
  %p1.1 = s32[] parameter(1)
  %taken = f32[1,8]{1,0} dynamic-slice(%p0.1, %p1.1, %p1.1), dynamic_slice_sizes={1,8}
  %taken.1 = f32[8]{0} bitcast(%taken)
  ROOT %twice = f32[8]{0} add(%taken.1, %taken.1)
}

%fused_product (p0.2: bf16[8,3], p1.2: bf16[3,4]) -> f32[8,4] {
  %p0.2 = bf16[8,3]{1,0} parameter(0)
  %p1.2 = bf16[3,4]{1,0} parameter(1)
  ROOT %dot = f32[8,4]{1,0} dot(%p0.2, %p1.2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_sum (p0.3: f32[8,4]) -> f32[8] {
  %p0.3 = f32[8,4]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %reduce = f32[8]{0} reduce(%p0.3, %zero), dimensions={1}, to_apply=%add
}

%condition (c: (s32[], f32[500,8])) -> pred[] {
  %c = (s32[], f32[500,8]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%body (t: (s32[], f32[500,8])) -> (s32[], f32[500,8]) {
  %t = (s32[], f32[500,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %all = f32[500,8]{1,0} get-tuple-element(%t), index=1
  %take = f32[8]{0} fusion(%all, %i), kind=kLoop, calls=%fused_take
  %record = f32[500,8]{1,0} fusion(%all, %take, %i), kind=kLoop, calls=%fused_record
  ROOT %next = (s32[], f32[500,8]{1,0}) tuple(%i, %record)
}

ENTRY %main (x: bf16[8,3], w: bf16[3,4], start: (s32[], f32[500,8])) -> f32[500,8] {
  %x = bf16[8,3]{1,0} parameter(0), metadata={op_name="x (the first)"}
  %w = bf16[3,4]{1,0} parameter(1)
  %start = (s32[], f32[500,8]{1,0}) parameter(2)
  %product = f32[8,4]{1,0} fusion(%x, %w), kind=kCustom, calls=%fused_product
  %rows = f32[8]{0} fusion(%product), kind=kInput, calls=%fused_sum
  %copy.1 = f32[8]{0} copy(%rows)
  %gemm = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%product, %product), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  %order = (f32[8]{0}, s32[8]{0}) sort(%rows, %rows), dimensions={0}, to_apply=%add
  %loop = (s32[], f32[500,8]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"500"}}
  ROOT %out = f32[500,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_kernels_of_a_program():
    program = hlo.Program(PROGRAM)
    cost = program.cost()
    assert cost.kernels == {"loop": 500, "product": 2, "reduction": 1, "sort": 1, "copy": 1 + 500}
    assert cost.launches == 1005
    assert cost.flops == 2 * (8 * 4 * 3) + 2 * (8 * 8 * 4)
    product, rows, copied = 2 * (24 + 12) + 4 * 32, 4 * (32 + 8), 4 * (8 + 8)
    gemm, order = 4 * (64 + 32 + 32) + 64, 4 * 4 * 8
    take, record = 4 * (8 + 1 + 8), 4 * (8 + 8 + 1)
    assert cost.bytes == product + rows + copied + gemm + order + 500 * (take + record)
    assert list(program.loops()) == [hlo.Loop(500, "body", None)]


def test_bounds_of_a_program():
    cost, h100 = hlo.Program(PROGRAM).cost(), gpu.read("h100")
    bounds = target.bounds(cost, h100)
    assert bounds["launches"] == pytest.approx(1005 * 2e-6) and bounds["launches_usual"] == pytest.approx(1005 * 3e-6)
    assert bounds["bytes"] == cost.bytes / h100.bytes_per_s and bounds["flops"] == cost.flops / h100.flops_per_s


def test_specifications_of_the_packaged_gpu():
    h100 = gpu.read("h100")
    assert h100.name == "NVIDIA H100 80GB HBM3" and h100.memory == pytest.approx(80e9, rel=0.08)
    assert h100.bytes_per_s == pytest.approx(3.35e12, rel=0.01)
    assert h100.flops_per_s == pytest.approx(0.99e15, rel=0.1)


def test_a_gpu_from_a_file(tmp_path):
    path = tmp_path / "a6000.txtpb"
    text = (gpu.GPUS / "h100.txtpb").read_text()
    path.write_text(text.replace("{ major: 9 ", "{ major: 8 minor: 6 ").replace("core_count: 132", "core_count: 84"))
    assert gpu.read(str(path)).flops_per_s == 1024 * 84 * 1.98e9


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("memory_bandwidth", "width", "lacks memory_bandwidth"),
        ("major: 9", "major: 7", r"compute capability 7\.0"),
    ],
)
def test_invalid_gpu_files_are_rejected(tmp_path, old, new, sentence):
    path = tmp_path / "gpu.txtpb"
    path.write_text((gpu.GPUS / "h100.txtpb").read_text().replace(old, new))
    with pytest.raises(UserError, match=sentence):
        gpu.read(str(path))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"figures": ("nope",)}, "figure nope; .*copy_bytes_per_s"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"target": "h999"}, "h999: .*h100"),
        ({"target": "h100", "figures": ("kernels",)}, "--target"),
        ({"against": ROOT, "cyborg": ROOT}, "leave out --cyborg"),
        ({"against": ROOT / "tests"}, "not a checkout"),
    ],
)
def test_invalid_settings_are_rejected(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        bench.run(bench.Config(**settings))


@pytest.mark.skipif(HAS_CUDA_PLUGIN, reason="the CUDA plugin is installed")
def test_a_gpu_target_without_the_plugin():
    with pytest.raises(UserError, match=r"pip install 'purecc4\[cuda\]'"):
        bench.run(bench.Config(target="h100"))


@pytest.mark.skipif(not HAS_CUDA_PLUGIN, reason="needs the CUDA plugin")
def test_the_env_step_compiles_for_a_gpu():
    """In a separate process, as JAX has already started here without the plugin."""
    code = "from purecc4.bench import gpu, target; print(next(target.env_step(gpu.compiler(gpu.read('h100')))).cost)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "'loop'" in done.stdout


def test_rates_of_wall_and_cpu(capsys):
    a_bench = Bench(repeats=2, quick=False)
    a_bench.report_rate("env_steps", 100, Seconds(2.0, 4.0), batch=1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(x["figure"], x["value"]) for x in lines] == [("env_steps_per_s", 50), ("env_steps_per_cpu_s", 25)]
    seconds = a_bench.time(lambda: sum(range(1_000_000)))
    assert seconds.cpu > 0 and seconds.wall > 0


def test_table():
    assert aligned([("a", "number"), ("b", "1,000"), ("longer", "7-9")]) == (
        "a       number\nb        1,000\nlonger     7-9"
    )


@pytest.fixture
def other(tmp_path):
    """A checkout whose bench prints the figures `rate` and `unknown`."""
    folder = tmp_path / "other" / "purecc4"
    folder.mkdir(parents=True)
    lines = [{"figure": name, "value": 0.5, "unit": "1", "settings": {"runs": 1}} for name in ("rate", "unknown")]
    shown = "\n".join(map(json.dumps, lines))
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(f"import sys\nprint({shown!r})\n")
    return folder.parent


def test_against_another_checkout(other, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    shutil.copytree(other, here)
    main = here / "purecc4" / "__main__.py"
    main.write_text(main.read_text().replace("0.5", "0.6").replace("unknown", "new"))
    monkeypatch.setattr(against, "HERE", here)
    bench.run(bench.Config(against=other, repeats=2))
    first, *table = capsys.readouterr().out.splitlines()
    settings = {"runs": 1, "against": str(other)}
    assert json.loads(first) == {
        **{"figure": "rate", "value": 1.2, "unit": "ratio", "ratios": [1.2, 1.2], "settings": settings}
    }
    assert table[1].split() == ["rate", "1.200", "1.200", "1.200", "runs=1"]
    assert len(table) == 3 and table[2].endswith(": new, unknown.")


def test_against_a_checkout_that_fails(other):
    (other / "purecc4" / "__main__.py").write_text("raise SystemExit('no figure so named')")
    with pytest.raises(UserError, match="other failed: no figure so named"):
        against.measure(other, ["--quick"], str(other))


def test_limits_of_the_machine_are_measured():
    figures = against.measure(ROOT, ["--quick", "--repeats", "1", "--figures", "launch_s"], "")
    assert {figure for figure, _ in figures} == {"copy_bytes_per_s", "matmul_flops_per_s", "launch_s"}
