"""Runs the interop checks: `main.py --help`. Started by ../run, which builds what is needed first."""

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile

import bench
import throughput
from cluster import CLUSTERS, available
from process import kill_all

# Each declares its checks when it is loaded; this is the order in which they run.
for subject in ("crud", "sharing", "modes", "locks", "bank", "faults"):
    importlib.import_module(subject)

THEIRS = ("client-go", "tikv-client")
OURS = "tikv"
RUNTIMES = ("tokio", "smol", "async-std")
# The whole run ends after this long, whatever happens.
MAX_SECONDS = int(os.environ.get("INTEROP_MAX_SECONDS", "2400"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    names = lambda text: [name for name in text.split(",") if name]  # noqa: E731
    parser.add_argument("--peers", type=names, default=[*THEIRS, OURS], help="client-go,tikv-client,tikv (default: all)")
    parser.add_argument("--runtimes", type=names, default=list(RUNTIMES), help="of tikv: tokio,smol,async-std (default: all)")
    parser.add_argument("--clusters", type=names, default=list(CLUSTERS), help="unistore,tikv-sim (default: all)")
    parser.add_argument("--only", help="run the cases whose name matches this regular expression")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    parser.add_argument("--throughput", action="store_true", help="measure raw get and put instead of checking")
    parser.add_argument("--logs", help="directory for what servers and peers write to stderr")
    for binary in ("client-go", "tikv-client", "tikv", "unistore", "tikv-sim"):
        parser.add_argument(f"--{binary}-bin", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


class Settings:
    """Where the programs are."""

    def __init__(self, args):
        self.only = args.only
        self.logs = args.logs or tempfile.mkdtemp(prefix="interop-logs-")
        os.makedirs(self.logs, exist_ok=True)
        self.servers = {"unistore": args.unistore_bin, "tikv-sim": args.tikv_sim_bin}
        self.peers = {"client-go": [args.client_go_bin], "tikv-client": [args.tikv_client_bin]}
        for runtime in args.runtimes:
            self.peers[f"{OURS}-{runtime}"] = [args.tikv_bin, "--runtime", runtime]


def rounds(args, gone):
    """Which peers meet: those of others and ours on one runtime at a time. In later rounds only cases with ours run."""
    theirs = [name for name in args.peers if name in THEIRS and name not in gone]
    if OURS not in args.peers or OURS in gone:
        return [(theirs, theirs)]
    first, *later = [f"{OURS}-{runtime}" for runtime in args.runtimes]
    return [([*theirs, first], [*theirs, first]), *(([*theirs, ours], [ours]) for ours in later)]


def missing(args, settings, report):
    """A program that was asked for and is not there is a failure, not a shorter run."""
    unknown = [name for name in args.peers if name not in (*THEIRS, OURS)]
    unknown += [name for name in args.clusters if name not in CLUSTERS]
    unknown += [name for name in args.runtimes if name not in RUNTIMES]
    for name in unknown:
        report.fail(f"setup {name}", "no such peer, cluster or runtime")
    wanted = {name: settings.peers[name][0] for name in args.peers if name in THEIRS}
    if OURS in args.peers:
        wanted[OURS] = args.tikv_bin
    wanted |= {name: settings.servers[name] for name in args.clusters if name in settings.servers}
    wanted["client-go"] = args.client_go_bin  # splits regions, whoever else takes part
    gone = [name for name, binary in wanted.items() if not available(binary)]
    for name in gone:
        report.fail(f"setup {name}", "its program was not built")
    return unknown + gone


def run_group(target, group, names, involving, settings, report):
    """All checks of one group on one fresh cluster."""
    checks = [check for check in bench.CHECKS if check.group == group]
    stage = involving[-1] if len(involving) == 1 else "+".join(names)
    if settings.only and not any(case_names(check, names, involving, target, settings.only) for check in checks):
        return
    try:
        setup = bench.Bench(target, names, settings)
    except Exception as error:
        report.fail(f"{target} {stage} {group}", f"could not start: {type(error).__name__}: {error}")
        kill_all()
        return
    try:
        for check in checks:
            for case in check.cases(setup.peers, involving):
                name = case_name(target, check, case)
                if bench.matches(settings.only, name):
                    report.run(name, lambda: check.run(setup, *case))
    finally:
        code = setup.close()
        if code not in setup.cluster.clean_exits:
            report.fail(f"{target} {stage} {group}", f"the server ended with {code} on SIGTERM")


def case_name(target, check, case):
    return f"{target} {check.name} [{', '.join(peer.name for peer in case)}]"


class _Named:
    def __init__(self, name):
        self.name = name


def case_names(check, names, involving, target, only):
    cases = check.cases([_Named(name) for name in names], involving)
    return [case_name(target, check, case) for case in cases if bench.matches(only, case_name(target, check, case))]


def main():
    args = arguments()
    if args.list:
        for check in bench.CHECKS:
            print(f"{check.group:14} {check.shape:6} {check.name}")
        return 0
    settings = Settings(args)
    report = bench.Report()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, give_up(report))
    signal.alarm(MAX_SECONDS)
    try:
        gone = missing(args, settings, report)
        groups = list(dict.fromkeys(check.group for check in bench.CHECKS))
        targets = [name for name in args.clusters if name not in gone and "client-go" not in gone]
        for target in targets:
            if args.throughput:
                names = list(dict.fromkeys(name for names, _ in rounds(args, gone) for name in names))
                report.run(f"{target} throughput", lambda: throughput.measure(target, names, settings))
                continue
            for names, involving in rounds(args, gone):
                for group in groups:
                    run_group(target, group, names, involving, settings, report)
    finally:
        kill_all()
    if report.failed:
        print(f"what servers and peers wrote: {settings.logs}")
    elif not args.logs:
        shutil.rmtree(settings.logs, ignore_errors=True)
    if report.skipped:
        print(f"{report.skipped} skipped: the server cannot do what they need")
    print(f"{report.passed} passed, {report.failed} failed", flush=True)
    return 1 if report.failed or not report.passed else 0


def give_up(report):
    def on_alarm(*_):
        kill_all()
        report.fail("the whole run", f"not finished after {MAX_SECONDS} s")
        print(f"{report.passed} passed, {report.failed} failed", flush=True)
        os._exit(1)

    return on_alarm


if __name__ == "__main__":
    sys.exit(main())
