"""One cell: window, levels, write and read noise, faults, I-V, temperature, and what may not be asked."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import integrate, stats
from torch import Tensor

from ohmloop.device import (
    DeviceModel,
    Estimate,
    Faults,
    Flicker,
    Physics,
    ReadNoise,
    TablePulses,
    Thermal,
    Variation,
    WriteNoise,
    list_devices,
    list_presets,
    load_device,
    save_device,
)
from ohmloop.errors import DeviceError

N = 200_000  # cells in a test of moments; bounds are 5 standard errors unless they say otherwise
PCM_WRITE = WriteNoise(kind="polynomial", coefficients=(0.26348e-6, 1.9650e-6, -1.1731e-6))


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def moments_agree(x: Tensor, mean: float, std: float, kurtosis: float = 3.0) -> None:
    """Assert mean and variance of independent ``x`` within 5 standard errors."""
    n = x.numel()
    assert float(x.mean()) == pytest.approx(mean, abs=5 * std / math.sqrt(n) + 1e-15 * abs(mean))
    error = math.sqrt((kurtosis - 1) / n)  # of the sample variance, relative
    assert float(x.var()) == pytest.approx(std**2, rel=5 * error)


# ---- levels and window


@settings(deadline=None)
@given(st.integers(2, 300), st.floats(0, 1e-4), st.floats(1e-7, 1e-3))
def test_levels_are_equally_spaced_and_the_nearest_is_taken(n: int, low: float, w: float) -> None:
    cell = Physics(g_min=low, g_max=low + w, levels=n)
    grid = low + (cell.g_max - low) * torch.arange(n, dtype=torch.float64) / (n - 1)
    torch.testing.assert_close(cell.quantised(grid), grid, rtol=1e-12, atol=1e-12 * w)
    step = cell.window / (n - 1)
    off = cell.quantised(grid[:-1] + 0.49 * step)
    torch.testing.assert_close(off, grid[:-1], rtol=1e-12, atol=1e-9 * w)
    x = torch.linspace(low - w, cell.g_max + w, 57, dtype=torch.float64)
    assert len(torch.unique(cell.quantised(x).round(decimals=14))) <= n
    assert float((cell.quantised(x).clamp(low, cell.g_max) - cell.quantised(x)).abs().max()) == 0


def test_unequal_targets_are_met_exactly() -> None:
    cell = Physics(g_min=0.0, g_max=1.0, targets=(0.0, 0.1, 0.4, 1.0))
    x = torch.tensor([-1.0, 0.04, 0.06, 0.24, 0.26, 0.69, 0.71, 9.0], dtype=torch.float64)
    expected = [0.0, 0.0, 0.1, 0.1, 0.4, 0.4, 1.0, 1.0]
    assert cell.quantised(x).tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_programming_without_noise_gives_the_target_and_keeps_the_type(dtype: torch.dtype) -> None:
    cell = Physics(g_min=1e-6, g_max=25e-6)
    target = torch.linspace(1e-6, 25e-6, 9, dtype=dtype)
    held = cell.program(target, normals(9, dtype=dtype))
    assert held.dtype == dtype
    torch.testing.assert_close(held, target, rtol=0, atol=0)
    assert cell.read_std(held).dtype == dtype
    assert float(cell.read_std(held).abs().max()) == 0
    torch.testing.assert_close(cell.drifted(held, 1e6, normals(9, dtype=dtype)), held)


def test_one_target_serves_many_devices() -> None:
    cell = Physics(g_min=0, g_max=1e-6, write=WriteNoise(sigma=0.2))
    target = (
        torch.rand(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e-6
    )
    noise = normals(3, 4, 5)
    both = cell.program(target, noise)
    for device in range(3):
        torch.testing.assert_close(both[device], cell.program(target, noise[device]))
    with pytest.raises(DeviceError, match="need normals of that shape"):
        cell.program(noise, target)


def test_gradient_passes_rounding_and_clipping_but_not_faults() -> None:
    cell = Physics(g_min=0.0, g_max=1.0, levels=5, write=WriteNoise(sigma=0.1))
    target = torch.tensor([-0.2, 0.3, 0.6, 1.2], dtype=torch.float64, requires_grad=True)
    noise = normals(4)
    mask = torch.tensor([0, 0, 1, 2], dtype=torch.int8)
    cell.program(target, noise, mask).sum().backward()
    assert target.grad is not None
    factor = (0.1 * noise).exp()
    torch.testing.assert_close(
        target.grad, torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64) * factor
    )


def test_every_gradient_is_finite_at_zero_conductance() -> None:
    cell = Physics(
        g_min=0.0,
        g_max=25e-6,
        write=PCM_WRITE,
        read=ReadNoise(
            relative=0.01,
            bandwidth=1e6,
            flicker=Flicker(coefficient=0.0088, exponent=0.65, maximum=0.2, t_read=250e-9),
        ),
        read_voltage=0.2,
    )
    target = torch.zeros(5, dtype=torch.float32, requires_grad=True)
    held = cell.program(target, normals(5, dtype=torch.float32))
    (held + cell.read_std(held, 100.0) * normals(5, dtype=torch.float32)).sum().backward()
    assert target.grad is not None
    assert bool(target.grad.isfinite().all())


# ---- write noise


def test_lognormal_write_noise_has_median_one() -> None:
    sigma, g = 0.4, 3e-6
    cell = Physics(g_min=0, g_max=10e-6, write=WriteNoise(kind="lognormal", sigma=sigma))
    held = cell.program(torch.tensor(g, dtype=torch.float64), normals(N))
    moments_agree((held / g).log(), 0.0, sigma)
    s2 = sigma**2
    kurtosis = math.exp(4 * s2) + 2 * math.exp(3 * s2) + 3 * math.exp(2 * s2) - 3
    std = float(cell.write.std(torch.tensor(g, dtype=torch.float64), cell.g_max))
    assert std == pytest.approx(g * stats.lognorm(sigma).std(), rel=1e-12)
    moments_agree(held, g * math.exp(s2 / 2), std, kurtosis)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_polynomial_write_noise_follows_its_law(share: float) -> None:
    cell = Physics(g_min=0, g_max=25e-6, write=PCM_WRITE)
    held = cell.program(torch.tensor(share * 25e-6, dtype=torch.float64), normals(N))
    std = (0.26348 + 1.9650 * share - 1.1731 * share**2) * 1e-6
    moments_agree(held, share * 25e-6, std)


def test_polynomial_write_noise_is_cut_where_it_falls_below_zero() -> None:
    write = WriteNoise(kind="polynomial", coefficients=(1e-6, -2e-6))
    cell = Physics(g_min=0, g_max=10e-6, write=write)
    held = cell.program(torch.tensor([8e-6], dtype=torch.float64), normals(100))
    assert float((held - 8e-6).abs().max()) == 0


def test_relative_write_noise_follows_its_law_and_never_goes_below_zero() -> None:
    cell = Physics(g_min=0, g_max=10e-6, write=WriteNoise(kind="relative", sigma=0.1))
    held = cell.program(torch.tensor(4e-6, dtype=torch.float64), normals(N))
    moments_agree(held, 4e-6, 0.4e-6)
    wild = Physics(g_min=0, g_max=1e-6, write=WriteNoise(kind="relative", sigma=3.0))
    assert float(wild.program(torch.tensor(1e-6, dtype=torch.float64), normals(N)).min()) == 0


def test_device_to_device_factors_stay_while_cycles_change() -> None:
    cell = Physics(
        g_min=0, g_max=1e-6, write=WriteNoise(sigma=0.1), variation=Variation(window=0.3)
    )
    own = normals(N, seed=5)
    target = torch.full((N,), 0.5e-6, dtype=torch.float64)
    first = (cell.program(target, normals(N, seed=6), cell=own) / 0.5e-6).log()
    second = (cell.program(target, normals(N, seed=7), cell=own) / 0.5e-6).log()
    moments_agree(first, 0.0, math.hypot(0.1, 0.3))
    moments_agree(first - second, 0.0, 0.1 * math.sqrt(2))
    assert cell.log_std() == pytest.approx(math.hypot(0.1, 0.3), rel=1e-12)
    alone = (cell.program(target, normals(N, seed=6)) / 0.5e-6).log()
    moments_agree(alone, 0.0, 0.1)


def test_log_std_of_gaussian_noise_agrees_with_numerical_integration() -> None:
    cell = Physics(g_min=0, g_max=25e-6, write=PCM_WRITE)
    share = float(PCM_WRITE.std(torch.tensor(12.5e-6, dtype=torch.float64), 25e-6)) / 12.5e-6
    moment = [
        integrate.quad(lambda n, k=k: math.log1p(share * n) ** k * stats.norm.pdf(n), -8, 8)[0]
        for k in (1, 2)
    ]
    expected = math.sqrt(moment[1] - moment[0] ** 2)
    assert cell.log_std() == pytest.approx(expected, rel=1e-3)


# ---- read noise


def test_read_noise_adds_in_quadrature() -> None:
    read = ReadNoise(relative=0.03, absolute=0.4e-6, bandwidth=1e9)
    cell = Physics(g_min=0, g_max=50e-6, read=read, read_voltage=0.2)
    g = torch.tensor([0.0, 10e-6], dtype=torch.float64)
    thermal = 4 * 1.380649e-23 * 350.0 * 1e9 * g / 0.2**2
    expected = ((0.03 * g) ** 2 + 0.4e-6**2 + thermal).sqrt()
    torch.testing.assert_close(cell.read_std(g, temperature=350.0), expected, rtol=1e-12, atol=0)
    readings = 10e-6 + float(expected[1]) * normals(N)
    moments_agree(readings, 10e-6, float(expected[1]))


def test_thermal_noise_in_single_precision_does_not_underflow() -> None:
    cell = Physics(g_min=0, g_max=1e-6, read=ReadNoise(bandwidth=1.0), read_voltage=0.2)
    g = torch.tensor([1e-9], dtype=torch.float32)
    expected = math.sqrt(4 * 1.380649e-23 * 300 * 1e-9) / 0.2
    assert float(cell.read_std(g)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("share", "q"), [(1.0, 0.0088), (0.25, 0.0088 * 0.25**-0.65), (1e-4, 0.2)])
def test_flicker_noise_grows_with_the_root_of_the_logarithm_of_time(share: float, q: float) -> None:
    flicker = Flicker(coefficient=0.0088, exponent=0.65, maximum=0.2, t_read=250e-9)
    cell = Physics(g_min=0, g_max=25e-6, read=ReadNoise(flicker=flicker))
    g = torch.tensor(share * 25e-6, dtype=torch.float64)
    for seconds in (1.0, 3600.0):
        expected = share * 25e-6 * q * math.sqrt(math.log((seconds + 250e-9) / 500e-9))
        assert float(cell.read_std(g, seconds)) == pytest.approx(expected, rel=1e-12)
    assert float(cell.verify_std(g)) == 0


# ---- faults


def test_faults_come_as_often_as_they_say_and_hold_their_end() -> None:
    faults = Faults(p_low=0.02, p_high=0.005)
    generator = torch.Generator().manual_seed(2)
    mask = faults.draw(torch.rand(N, generator=generator))
    assert mask.dtype == torch.int8
    for value, p in ((1, 0.02), (2, 0.005)):
        share = float((mask == value).double().mean())
        assert share == pytest.approx(p, abs=5 * math.sqrt(p / N))
    cell = Physics(g_min=1e-6, g_max=9e-6, write=WriteNoise(sigma=0.5), faults=faults)
    held = cell.program(torch.full((N,), 5e-6), normals(N, dtype=torch.float32), mask)
    assert torch.equal(held[mask == 1], torch.full_like(held[mask == 1], 1e-6))
    assert torch.equal(held[mask == 2], torch.full_like(held[mask == 2], 9e-6))


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.4, 0.6)])
def test_certain_faults_are_certain(low: float, high: float) -> None:
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.999999], dtype=torch.float64)
    mask = Faults(p_low=low, p_high=high).draw(uniform)
    assert int((mask == 0).sum()) == (4 if low + high == 0 else 0)


# ---- current and temperature


def test_current_is_ohmic_at_small_voltage_and_sinh_at_large() -> None:
    cell = Physics(g_min=0, g_max=1e-3, v0=0.5)
    g, v = torch.tensor(1e-4, dtype=torch.float64), torch.tensor([1e-6, -1.0], dtype=torch.float64)
    assert float(cell.current(g, v)[0]) == pytest.approx(1e-10, rel=1e-9)
    assert float(cell.current(g, v)[1]) == pytest.approx(-1e-4 * 0.5 * math.sinh(2.0), rel=1e-12)
    ohmic = Physics(g_min=0, g_max=1e-3)
    torch.testing.assert_close(ohmic.current(g, v), g * v)


def test_arrhenius_acceleration_and_conductance_follow_the_source() -> None:
    thermal = Thermal(reference=300, low=280, high=400, activation=1.0, coefficient=-1e-3)
    k = 8.617333262e-5
    assert thermal.acceleration(300) == 1
    assert thermal.acceleration(350) == pytest.approx(math.exp((1 / 300 - 1 / 350) / k))
    cell = Physics(g_min=0, g_max=1e-6, temperature=thermal)
    g = torch.tensor([1e-6])
    torch.testing.assert_close(cell.heated(g, 400.0), 0.9 * g)


def test_a_temperature_that_no_source_covers_is_refused() -> None:
    g = torch.tensor([1e-6])
    plain = Physics(g_min=0, g_max=1e-6)
    with pytest.raises(DeviceError, match="gives no temperature dependence"):
        plain.heated(g, 350.0)
    cell = Physics(g_min=0, g_max=1e-6, temperature=Thermal(low=290, high=360, activation=0.5))
    with pytest.raises(DeviceError, match=r"covers 290 to 360 K; received 400 K"):
        cell.drifted(g, 1.0, g, temperature=400.0)
    with pytest.raises(DeviceError, match=r"temperature\.coefficient"):
        cell.heated(g, 350.0)


# ---- what may not be


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Physics(g_min=2e-6, g_max=1e-6), "window"),
        (lambda: Physics(g_min=1e-6, g_max=1e-6), "is empty"),
        (lambda: Physics(g_min=-1e-6, g_max=1e-6), "greater than or equal to 0"),
        (lambda: Physics(g_min=0, g_max=math.nan), "finite"),
        (lambda: Physics(g_min=0, g_max=1e-6, levels=1), "greater than or equal to 2"),
        (lambda: Physics(g_min=0, g_max=1.0, targets=(0.1,)), "at least two"),
        (lambda: Physics(g_min=0, g_max=1.0, targets=(0.5, 0.2)), "rising"),
        (lambda: Physics(g_min=0, g_max=1.0, targets=(0.5, 2.0)), "inside the window"),
        (lambda: Physics(g_min=0, g_max=1.0, levels=3, targets=(0.0, 1.0)), "place of levels"),
        (lambda: Physics(g_min=0, g_max=1e-6, gmax=2), 'Did you mean "g_max"'),
        (lambda: Physics(g_min=0, g_max=1e-6, read=ReadNoise(bandwidth=1e3)), "read_voltage"),
        (lambda: WriteNoise(sigma=-0.1), "greater than or equal to 0"),
        (lambda: WriteNoise(kind="polynomial"), "takes coefficients"),
        (lambda: WriteNoise(kind="relative", coefficients=(1e-6,)), "no coefficients"),
        (lambda: WriteNoise(sgima=0.1), 'Did you mean "sigma"'),
        (lambda: WriteNoise(sigma=0.1, source={"simga": "x"}), 'Did you mean "sigma"'),
        (lambda: ReadNoise(relative=-1), "greater than or equal to 0"),
        (lambda: Faults(p_low=0.7, p_high=0.4), "lies in"),
        (lambda: Thermal(reference=300, low=310, high=320), "must hold the reference"),
        (lambda: Thermal(low=200, high=400, coefficient=-0.02), "negative at 400 K"),
        (
            lambda: Physics(
                g_min=1.0,
                g_max=2.0,
                pulses=TablePulses(
                    conductance=(3.0, 4.0),
                    up_mean=(0, 0),
                    up_std=(0, 0),
                    down_mean=(0, 0),
                    down_std=(0, 0),
                ),
            ),
            "outside the window",
        ),
    ],
)
def test_impossible_cells_are_refused_with_the_reason(make, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        make()


def test_negative_time_is_refused() -> None:
    cell = Physics(g_min=0, g_max=1e-6)
    g = torch.tensor([1e-6])
    with pytest.raises(DeviceError, match="seconds >= 0"):
        cell.drifted(g, -1.0, g)
    with pytest.raises(DeviceError, match="seconds >= 0"):
        cell.read_std(g, math.inf)


# ---- devices


def test_every_nanowire_has_a_cell_with_its_window_and_sigma() -> None:
    for device in list_devices():
        cell = device.cell()
        assert (cell.g_min, cell.g_max) == (device.g_min, device.g_max)
        assert cell.log_std() == device.sigma.value
        assert cell.write.source
        assert cell.source


def test_lognormal_gets_a_stated_assumed_window_and_follows_the_law_exactly() -> None:
    cell = load_device("lognormal:0.4").cell()
    assert cell.g_min == 0
    assert isinstance(cell.source, str)
    assert cell.source.startswith("assumed")
    w, noise = normals(1000, seed=3), normals(1000, seed=4)
    w = w / w.abs().max()
    up = cell.program(w.clamp_min(0) * cell.g_max, noise)
    down = cell.program((-w).clamp_min(0) * cell.g_max, noise)
    torch.testing.assert_close((up - down) / cell.g_max, w * (0.4 * noise).exp())


def test_a_device_without_a_window_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match="Give g_min < g_max in siemens"):
        DeviceModel(name="x", sigma=Estimate(value=0.1)).cell()


def test_physics_survives_the_file(tmp_path) -> None:
    device = DeviceModel(
        name="x",
        sigma=Estimate(value=0.1),
        physics=Physics(g_min=0, g_max=1e-6, write=PCM_WRITE, source={"g_max": "mine"}),
    )
    save_device(device, tmp_path / "d.json")
    assert load_device(tmp_path / "d.json") == device
    names = {c.name: c for c in device.cell().constants()}
    assert names["g_max"].unit == "S"
    assert names["g_max"].source == "mine"
    assert "faults.p_low" not in names


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_everything_runs_where_the_tensors_are() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    for device in list_presets():
        cell = device.cell()
        target = cell.g_min + cell.window * torch.rand(8, 8, generator=generator, device="cuda")
        mask = cell.faults.draw(torch.rand(8, 8, generator=generator, device="cuda"))
        noise = torch.randn(8, 8, generator=generator, device="cuda")
        held = cell.drifted(cell.program(target, noise, mask, cell=noise), 1e5, noise, mask)
        assert held.is_cuda
        assert cell.read_std(held, 1e5).is_cuda
        if cell.pulses is not None:
            done = cell.write_verify(target, generator, tolerance=0.02, max_pulses=100)
            assert all(x.is_cuda for x in done)
