"""The methods paragraphs of a run: what was done, every setting, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ohmloop.report._page import settings_of
from ohmloop.report._run_plots import label_of

if TYPE_CHECKING:
    from ohmloop.tasks import Entry
    from ohmloop.train import Evaluation, RunRecord

LAW = (
    "Devices are simulated. Under the law on weights each programmed weight w becomes "
    "w · rho(|w| / max|w|) · exp(N(0, sigma²)), independently for each weight; in the convention median-1 the "
    "factor's median is 1, in mean-1 its mean. Activations, wires, converters, drift in time and stuck cells "
    "are not part of that law."
)
ARRAYS = (
    "On arrays each weight is written into cells and read through converters and wires, as the settings below "
    "say; energy is counted from the cells that were written and the inputs that drove them, control and "
    "interconnect left out. Its constants and their sources are in docs/energy.md."
)
PEROVSKITE = (
    "The device law and figures of merit: Ye, Sun, Wang et al., Synergistic Development of Perovskite "
    "Memristors and Algorithms for Robust Analog Computing, arXiv 2412.02779 (2024)."
)


def paragraphs(
    record: RunRecord, description: str, fleets: Sequence[Evaluation]
) -> tuple[str, ...]:
    """Return what was done, in words."""
    from ohmloop.train import Noise

    config, result = record.config, record.result
    devices = " and ".join(map(trained_for, config["hardware"]))
    noise = str(Noise.model_validate(result["noise"])) if result.get("noise") else "none"
    searched = len(result.get("trials", ()))
    search = (
        f" Its settings were searched in {searched} trials on training and validation data alone."
        if searched
        else ""
    )
    limit = "" if config["limit"] is None else f", {config['limit']} development samples at most"
    out = [
        f"Task {config['task']}: {description.rstrip('.')}. The network {config['model']} was trained by "
        f"{config['method']} for {devices} (deployment {config['deployment']}): {config['epochs']} epochs of "
        f"Adam, batches of {config['batch_size']}, largest learning rate {config['lr']:g}, "
        f"{config['schedule']} schedule, seed {config['seed']}{limit}. Noise of the training that was kept: "
        f"{noise}.{search} In all it cost {result['cost']:.3g} plain trainings. Test data were opened for "
        "evaluation only.",
        LAW,
    ]
    if fleets:
        sizes = sorted({e.n_devices for e in fleets})
        seeds = sorted({e.seed for e in fleets})
        out.append(
            f"Each score is that of one simulated device; fleets of {_listed(sizes)} devices, seed "
            f"{_listed(seeds)}. ± is the standard deviation from device to device, for this one trained "
            "network: it says nothing about other trainings. The worst tenth is the mean of the worst tenth of "
            "the devices."
        )
    if any(e.on_array for e in fleets):
        out.append(ARRAYS)
    if record.certificates:
        out.append(
            "Certificates are proven statements: S1 about every device within a distance, S2 about a random "
            "device of the law, S3 about a random device after a systematic shift of the law. Each holds with "
            "its own confidence over the drawing of the virtual devices; k of them hold together with "
            "1 - k alpha. docs/certificates.md derives them."
        )
    return tuple(out)


def _listed(values: Iterable[int]) -> str:
    return ", ".join(f"{v:,}" for v in values)


def settings(record: RunRecord, fleets: Sequence[Evaluation]) -> tuple[tuple[str, str], ...]:
    """Return every setting of training, evaluation and certificates."""
    config = dict(record.config)
    trained_for = config.pop("hardware")
    rows = [*settings_of(config)]
    rows += [("trained for", _together(hardware_settings(h))) for h in trained_for]
    rows.append(("noise of the training that was kept", _together(record.result.get("noise", {}))))
    for e in fleets:
        asked = {
            "n_devices": e.n_devices,
            "seed": e.seed,
            "deployment": e.deployment,
            "test_limit": e.test_limit,
            "by_doing": e.by_doing,
            **hardware_settings(e.hardware),
        }
        rows.append((f"evaluation on {label_of(e)}", _together(asked)))
    asked_for: dict[tuple[str, str], list[str]] = {}
    for c in record.certificates:
        asked_for.setdefault((c.device, _together(c.settings)), []).append(c.asked)
    for (device, text), names in asked_for.items():
        rows.append((f"certificates of {device}: {', '.join(dict.fromkeys(names))}", text))
    return tuple(dict.fromkeys(rows))


def _together(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in settings_of(values))


def trained_for(hardware: Mapping[str, Any]) -> str:
    """Return what a network was trained for, in a few words: the device, and the size of its arrays.

    >>> trained_for({"device": {"name": "wire"}, "array": {"rows": 64, "columns": 32}})
    'wire on arrays of 64 x 32 cells'
    """
    name, array = str(hardware["device"]["name"]), hardware.get("array")
    return (
        name if array is None else f"{name} on arrays of {array['rows']} x {array['columns']} cells"
    )


_FACTS = ("description", "figures", "recipe", "published", "sources", "citation", "schema_version")


def hardware_settings(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a simulation depends on; what else is known of the device is left out."""
    device = {k: v for k, v in hardware["device"].items() if k not in _FACTS}
    return {**hardware, "device": device}


def citations(record: RunRecord, entry: Entry | None) -> tuple[str, ...]:
    """Return the sources of method, devices and data, each once."""
    config = record.config
    hardwares = [
        *config["hardware"],
        *(e.hardware for e in record.evaluations),
        *(c.hardware for c in record.certificates if c.hardware is not None),
    ]
    name = str(config["method"]).partition(":")[0]
    rows = [method_source(name), PEROVSKITE]
    rows += device_citations(hardwares)
    if entry is not None and entry.citation:
        rows.append(f"Data {config['task']}: {_sentence(entry.citation)}")
    return tuple(dict.fromkeys(filter(None, rows)))


def method_source(method: str) -> str:
    """Return where a method comes from, as one line; "" where that is not known."""
    from ohmloop.train import method_citation

    found = method_citation(method)
    return f"Method {method}: {_sentence(found)}" if found else ""


def device_citations(hardwares: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return where the devices were measured or published, each device once."""
    out = []
    for hardware in hardwares:
        device = hardware["device"]
        if device["citation"]:
            out.append(f"Device {device['name']}: {_sentence(device['citation'])}")
    return list(dict.fromkeys(out))


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}." if text else ""
