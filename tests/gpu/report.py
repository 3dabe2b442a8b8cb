"""report.py RECORDS OUT: the lines of JSON that tests/gpu/check has so far, as OUT.json and as the table OUT.txt."""
import json
import sys

records, out = sys.argv[1:3]
rows, torn = [], 0
for line in open(records, errors="replace"):
    try:
        rows.append(json.loads(line))
    except ValueError:
        torn += 1
head = rows[0]
facts = {k: v for r in rows if r["part"] == "device" for k, v in r.items() if k not in ("part", "state", "spent_s", "why")}
states = [r for r in rows if "state" in r]
with open(out + ".json", "w") as f:
    json.dump({**{k: v for k, v in head.items() if k != "part"}, **facts, "parts": states, "torn_lines": torn,
               "results": [r for r in rows[1:] if "state" not in r and r["part"] != "device"]}, f, indent=1)
    f.write("\n")


def number(r, key):
    return r[key] if isinstance(r.get(key), (int, float)) else float("nan")


def share(r, of):
    return f"{100 * r[of]:6.1f} %" if of in r else " " * 8


with open(out + ".txt", "w") as f:
    print(f"{head['date']}  {head['commit']}  {head['device']}", file=f)
    for k, v in facts.items():
        print(f"  {k}: {v}", file=f)
    for s in states:
        print(f"{s['part']:12} {s['state']:8} {s['spent_s']:4} s  {s['why']}", file=f)
        for r in (r for r in rows if r["part"] == s["part"] and "failed" in r):
            print(f"             {r['failed']}", file=f)
    shape = None
    for r in (r["result"] for r in rows if "result" in r):
        if r.get("shape") == shape and shape:
            continue
        shape = r.get("shape", shape)
        if "device" in r:
            print(f"\n{r['shape']}: copy {r['copy_gbs']:.0f} GB/s, product {r['product_tflops']:.0f} TFLOP/s; kernels: of those, of published",
                  file=f)
        elif "failed" in r:
            print(f"  {r['kernel']:36} {r['failed']}", file=f)
        else:
            rate = f"{r['tflops']:8.1f} TFLOP/s" if "tflops" in r else f"{r['gbs']:8.0f} GB/s   "
            of = share(r, "share_of_product" if "tflops" in r else "share_of_copy")
            print(f"  {r['kernel']:36} {r['ms']:10.4f} ms {rate} {of} {share(r, 'share_of_published')}", file=f)
    products = [r for r in rows if "fastest_us" in r]
    if products:
        print("\nproduct (m x n x k, traits)               first us  fastest us  gain", file=f)
    for r in products:
        print(f"  {r['shape']:5} {r['product']:32} {number(r, 'first_us'):9.2f} {number(r, 'fastest_us'):9.2f} "
              f"{100 * (1 - number(r, 'fastest_us') / number(r, 'first_us')):6.1f} %", file=f)
    speeds = [r for r in rows if "tokens_per_s" in r]
    if speeds:
        print("\nrun                          tokens/s  predicted  MFU", file=f)
    for r in speeds:
        model = f"{number(r, 'predicted'):9.0f}  {100 * number(r, 'mfu'):.1f} %" if "predicted" in r else f"{r.get('versions', '')}"
        print(f"  {r['run']:26} {number(r, 'tokens_per_s'):9.0f} {model}", file=f)
