"""Secure against plain aggregation, eight sites of which two drop out: how far the sums differ, bytes and seconds.

    python bench/secure.py OUT.json

Sites and server in this program, with the code and the cryptography that run at hospitals; the network is left out. Values are
those of the private recipe's adapters and of LoRA on every block of a ViT-S.
"""

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from client.round.secure_aggregation import begin, mask, open_ciphertexts, share, unmask
from common.aggregation.fedavg import FedAvg
from common.config.run import RunConfig, config_from_table
from common.files import write_atomic
from common.messages.secure_aggregation import to_record
from common.secure.fixed_point import FixedPoint, Values
from server.strategy.secure_aggregation import SecureRound

SITES, THRESHOLD, DROPPED = 8, 5, (3, 8)
CONFIG = config_from_table({"secure": {"enabled": True}})
LENGTHS = {"15 thousand values": 15_000, "370 thousand values (LoRA of rank 8 on a ViT-S)": 370_000}


def updates(length: int) -> dict[int, tuple[Values, float]]:
    """Changes as AdamW makes them in a round, and 20 to 200 patients a site."""
    generator = np.random.default_rng(0)
    return {seat: (generator.normal(0, 3e-3, length), float(generator.integers(20, 201))) for seat in range(1, SITES + 1)}


def size(message: Any) -> int:
    """Bytes of a message's fields."""
    record = to_record(message)
    values = [item for value in record.values() for item in (value if isinstance(value, list) else [value])]
    return sum(len(value) if isinstance(value, bytes | str) else 8 for value in values)


def secure(data: dict[int, tuple[Values, float]], config: RunConfig) -> tuple[Values, dict[str, float]]:
    """One round; the dropped sites are lost after the others have masked against them, the dearest case."""
    length = len(next(iter(data.values()))[0])
    plan = config.secure
    server = SecureRound(SITES, THRESHOLD, length, FixedPoint.for_sites(SITES, plan.update_range, plan.max_weight), bytes(32))
    moved = {seat: np.zeros(2, int) for seat in data}  # bytes up and down
    seconds = {"sites": 0.0, "server": 0.0}
    kept = {}
    for seat in data:
        began = time.perf_counter()
        kept[seat], told = begin(server.keys_for(seat), config)
        seconds["sites"] += time.perf_counter() - began
        server.take_keys(seat, told)
        moved[seat] += (size(told), size(server.keys_for(seat)))
    for seat in data:
        asked, began = server.peers_for(seat), time.perf_counter()
        kept[seat], shares = share(asked, kept[seat])
        seconds["sites"] += time.perf_counter() - began
        server.take_shares(seat, shares)
        moved[seat] += (size(shares), size(asked))
    there = [seat for seat in data if seat not in DROPPED]
    for seat in there:
        ciphertexts, began = server.ciphertexts_for(seat), time.perf_counter()
        kept[seat] = open_ciphertexts(ciphertexts, kept[seat])
        words = mask(kept[seat], config, *data[seat])
        seconds["sites"] += time.perf_counter() - began
        server.take_masked(seat, words)
        moved[seat] += (words.nbytes, size(ciphertexts))
    for seat in there:
        question, began = server.unmask_for(seat), time.perf_counter()
        answer = unmask(question, kept[seat])
        seconds["sites"] += time.perf_counter() - began
        server.take_unmask(seat, answer)
        moved[seat] += (size(answer), size(question))
    began = time.perf_counter()
    mean, _ = server.result()
    seconds["server"] = time.perf_counter() - began
    return mean, {
        "bytes up a site that stays": int(moved[there[0]][0]),
        "bytes down to it, beside the model": int(moved[there[0]][1]),
        "seconds a site that stays": round(seconds["sites"] / len(there), 3),
        "seconds at the server": round(seconds["server"], 3),
    }


def main(out: Path) -> None:
    """Measure and write."""
    results = {}
    for name, length in LENGTHS.items():
        data = updates(length)
        found, costs = secure(data, CONFIG)
        start = {"w": np.random.default_rng(1).normal(0, 0.05, length).astype(np.float32)}
        there = [data[seat] for seat in data if seat not in DROPPED]
        plain, _ = FedAvg().apply({}, start, (({"w": change}, weight) for change, weight in there))
        expected = sum(weight * change for change, weight in there) / sum(weight for _, weight in there)
        together = (start["w"] + found).astype(np.float32)
        results[name] = {
            "relative difference of the arrays": float(np.linalg.norm(together - plain["w"]) / np.linalg.norm(plain["w"])),
            "relative difference of the change": float(np.linalg.norm(found - expected) / np.linalg.norm(expected)),
            "bytes up a site, plain": 4 * length,
            **costs,
        }
    setting = {"sites": SITES, "dropped": len(DROPPED), "threshold": THRESHOLD, "machine": platform.machine()}
    write_atomic(out, (json.dumps(setting | {"results": results}, indent=2) + "\n").encode())
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
