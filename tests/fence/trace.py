#!/usr/bin/env python3
"""Reads a trace of the profiler and counts what may run beside what: not from its times, but from the order that its queues and events
allow. A call comes after those before it on its stream, and after what a wait before it waits for; of two that are in neither order
one may hide under the other.

    trace.py FILE STREAM OP EXPECTED [GROUPS]

Of every group of calls on STREAM (those between two waits) it counts the calls of OP on the compute stream that are in no order with
any of the group, and wants EXPECTED of them each time (a number; N+ for at least N, N> for that of all groups but the first, before which
there is nothing, N< of all but the last, after which there is); GROUPS: how many groups there must be.

    trace.py FILE steps FIRST LAST        which steps, by their updates; and that times are in the order of each stream
"""
import json
import sys


class Trace:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.whole = json.load(f)
        events = self.whole["traceEvents"]
        self.names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
        rows = [e for e in events if e["ph"] in "XiBE" and "seq" in e.get("args", {})]
        self.rows = sorted(rows, key=lambda e: e["args"]["seq"])
        arrows = {ph: [e["id"] for e in events if e["ph"] == ph] for ph in "sf"}
        assert set(arrows["f"]) <= set(arrows["s"]), "an arrow from nowhere"
        self.order()

    def order(self):
        """before[i][stream]: the last call of that stream that call i comes after."""
        now, recorded, self.before = {}, {}, []
        for e in self.rows:
            seq, stream = e["args"]["seq"], e["tid"]
            known = now.setdefault(stream, {})
            if e["name"] == "record":
                recorded[seq] = {**known, stream: seq}
            for other, last in recorded.get(e["args"].get("after", -1), {}).items():
                known[other] = max(known.get(other, -1), last)
            self.before.append(dict(known))
            known[stream] = seq

    def groups(self, stream):
        """Calls of a stream, cut at its waits."""
        group = []
        for i, e in enumerate(self.rows):
            if self.names[e["tid"]] != stream:
                continue
            if e["cat"] == "event":
                if group and "after" in e["args"]:
                    yield group
                    group = []
            elif e["ph"] == "X":
                group.append(i)
        if group:
            yield group

    def beside(self, group, op):
        """How many `op` of the compute stream are neither before the last of the group nor after its first."""
        stream = self.rows[group[0]]["tid"]
        first, last = self.rows[group[0]]["args"]["seq"], self.rows[group[-1]]["args"]["seq"]
        n = 0
        for i, e in enumerate(self.rows):
            if e["name"] != op or self.names[e["tid"]] != "compute" or e["tid"] == stream:
                continue
            is_before = e["args"]["seq"] <= self.before[group[-1]].get(e["tid"], -1)
            is_after = self.before[i].get(stream, -1) >= first
            n += not is_before and not is_after
        assert first <= last
        return n


def times(trace):
    """Calls of one stream do not overlap, and come in the order in which they were queued."""
    end = {}
    for e in trace.rows:
        assert e["ts"] >= end.get(e["tid"], 0) - 0.01, f"{e} begins before what was queued before it has ended"
        end[e["tid"]] = e["ts"] + e.get("dur", 0)


def main():
    trace, what = Trace(sys.argv[1]), sys.argv[2]
    if what == "steps":
        first, last = int(sys.argv[3]), int(sys.argv[4])
        updates = sum(e["name"] == "step_decide" for e in trace.rows)
        times(trace)
        print(f"steps from {trace.whole['otherData']['first_step']}, {updates} updates, {len(trace.rows)} calls on {sorted(trace.names.values())}")
        sys.exit(trace.whole["otherData"]["first_step"] != first or updates != last - first + 1)
    op, expected = sys.argv[3], sys.argv[4]
    counts = [trace.beside(g, op) for g in trace.groups(what)]
    if expected[-1] in "+<>":
        asked = counts[expected[-1] == ">" : len(counts) - (expected[-1] == "<")]
        good = all(n >= int(expected[:-1]) for n in asked)
    else:
        good = all(n == int(expected) for n in counts)
    print(f"{what}: {len(counts)} groups of calls, beside them {counts} {op}")
    sys.exit(not (counts and good and (len(sys.argv) < 6 or len(counts) == int(sys.argv[5]))))


if __name__ == "__main__":
    main()
