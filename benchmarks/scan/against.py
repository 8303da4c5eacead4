"""One cold scan, and the job of five rounds, against ALaaS and against the loops."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.record import row
from benchmarks.scan import peers
from benchmarks.scan.peers import NAMES, Peer, Queried
from benchmarks.scan.stage import Stage
from benchmarks.scan.throughput import DELAY_MS, cold_scan

ROUNDS = 5
FIRST_LABELS = 100  # spread evenly; each round's picks are labelled for the next
TRY = 2  # runs of a loop that another beats by far tell no more


def alaas_cold(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """Ours and ALaaS's in turns; beside ours of the default engine the one in fp32, where that is another."""
    keys = stage.upload(stage.items)
    peer = peers.best(stage, "ALaaS", DELAY_MS)
    ours, exact, theirs = [], [], []
    for _ in range(repeat):
        ours.append(cold_scan(stage, stage.items))
        if stage.precision != "fp32":
            exact.append(cold_scan(stage, stage.items, precision="fp32"))
        theirs.append(_query(stage, peer, keys, 1))
    their_rate = [len(keys) / queried.seconds for queried in theirs]
    ratios = [scan.rate / rate for scan, rate in zip(ours, their_rate, strict=True)]
    exactly = [scan.rate / rate for scan, rate in zip(exact, their_rate, strict=True)] if exact else ratios
    yield row(
        "vs_alaas_cold", "images a second in one cold scan, over ALaaS 0.2.1", ratios, "×", target=5, better="higher",
        fp32=[round(ratio, 3) for ratio in exactly], precision=stage.precision,
        images_per_s=[round(scan.rate, 2) for scan in ours], alaas_per_s=[round(rate, 2) for rate in their_rate],
        alaas_setting=vars(peer), items=stage.items,
    )  # fmt: skip


def alaas_job(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """Five rounds on one pool: ours encodes once and fits five heads, ALaaS fetches and infers five times."""
    keys = stage.upload(stage.items)
    peer = peers.best(stage, "ALaaS", DELAY_MS)
    ours, theirs = [], []
    for _ in range(repeat):
        ours.append(job(stage))
        theirs.append(_query(stage, peer, keys, ROUNDS).seconds)
    yield row(
        "vs_alaas_job", f"seconds of {ROUNDS} rounds with a new head each, ALaaS's over ours",
        [their_s / our["seconds"] for their_s, our in zip(theirs, ours, strict=True)], "×", target=25, better="higher",
        ours=ours, alaas_s=[round(seconds, 2) for seconds in theirs], alaas_setting=vars(peer), items=stage.items,
    )  # fmt: skip


def loops(stage: Stage, repeat: int) -> Iterator[dict[str, Any]]:
    """Both rows: each loop fetches once and asks its model five times, so its first query is the cold scan."""
    keys = stage.upload(stage.items)
    settings = {name: peers.best(stage, name, DELAY_MS) for name in NAMES}
    runs: dict[str, list[Queried]] = {name: [] for name in NAMES}
    ours, jobs = [], []
    for number in range(repeat):
        ours.append(cold_scan(stage, stage.items))
        jobs.append(job(stage)["seconds"])
        fastest = min(NAMES, key=lambda name: _cold_s(runs[name]))
        for name in NAMES:
            if number < TRY or _cold_s(runs[name]) < 1.2 * _cold_s(runs[fastest]):
                runs[name].append(_query(stage, settings[name], keys, ROUNDS))
                print(f"  {name}: {len(keys) / _cold_s(runs[name][-1:]):.1f}/s", flush=True)
    cold = {name: len(keys) / _cold_s(found) for name, found in runs.items()}
    jobs_s = {name: min(queried.seconds for queried in found) for name, found in runs.items()}
    more = {"items": stage.items, "settings": {name: vars(peer) for name, peer in settings.items()}}
    yield row(
        "vs_loops_cold", "images a second in one cold scan, over the best loop's best run",
        [scan.rate / max(cold.values()) for scan in ours], "×", target=8, better="higher",
        peers={name: round(rate, 2) for name, rate in cold.items()},
        images_per_s=[round(scan.rate, 2) for scan in ours], precision=stage.precision, **more,
    )  # fmt: skip
    yield row(
        "vs_loops_job", f"seconds of {ROUNDS} rounds with a new head each, the best loop's best run over ours",
        [min(jobs_s.values()) / seconds for seconds in jobs], "×", target=30, better="higher",
        peers={name: round(seconds, 2) for name, seconds in jobs_s.items()},
        ours_s=[round(seconds, 2) for seconds in jobs], **more,
    )  # fmt: skip


def job(stage: Stage) -> dict[str, Any]:
    """Five rounds of ours on a cold pool: encode, then learn and choose five times. Labelling takes no time."""
    stage.upload(stage.items)
    with stage.slow(DELAY_MS) as network, stage.ours(network.endpoint) as ours:
        project = ours.make(stage.items)
        scan = ours.scan(project, network)
        ours.ask("label", project=project, count=min(FIRST_LABELS, stage.items // 4))
        turns = []
        for number in range(1, ROUNDS + 1):
            turns.append(ours.ask("turn", project=project, number=number))
            ours.ask("label", project=project, ids=turns[-1]["picked"])
    seconds = scan.seconds + sum(turn["learn_s"] + turn["choose_s"] for turn in turns)
    print(f"  our job: {seconds:.1f} s, of which {scan.seconds:.1f} s encoding", flush=True)
    return {
        "seconds": round(seconds, 2), "encode_s": round(scan.seconds, 2),
        "learn_s": [round(turn["learn_s"], 2) for turn in turns],
        "choose_s": [round(turn["choose_s"], 2) for turn in turns],
    }  # fmt: skip


def _query(stage: Stage, peer: Peer, keys: Sequence[str], rounds: int) -> Queried:
    with peers.started(stage, peer) as companion, stage.slow(DELAY_MS) as network:
        queried = peers.query(companion, peer, peers.addresses(network, keys), rounds)
    print(f"  {peer.name}: {len(keys) * rounds / queried.seconds:.1f} images/s over {rounds} queries", flush=True)
    return queried


def _cold_s(runs: Sequence[Queried]) -> float:
    """The best run's seconds until its first query is answered."""
    return min((run.fetch_s + run.query_s[0] for run in runs), default=float("inf"))
