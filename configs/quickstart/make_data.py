#!/usr/bin/env python3
"""Writes the quickstart's data. Standard library only; the same bytes from every Python 3.

    make_data.py rows   DIR            train.jsonl and heldout.jsonl (committed beside this file)
    make_data.py corpus FILE [ROWS [SEED]]    the pre-training corpus (made on demand, not committed)

The task is extraction: a sentence about something sent becomes a record of five fields. The corpus has the same kind of
sentences, each followed by questions about one to three fields in many wordings and forms; it never has the record, nor any
answer that gives more than three of its five fields, nor a record without a question. So the base model can find and copy a field, and the record is what LoRA
adds. No sentence of train.jsonl or heldout.jsonl occurs in the corpus, and none of heldout.jsonl in train.jsonl.
"""
import json
import os
import sys

ITEMS = ("parcel letter crate box pallet barrel basket suitcase trunk guitar piano bicycle carpet mirror lamp "
         "sofa").split()
CITIES = ("Oslo Bergen Lisbon Porto Madrid Paris Lyon Ghent Utrecht Hamburg Bremen Leipzig Vienna Graz Prague Warsaw "
          "Riga Tallinn Helsinki Stockholm Dublin Galway Leeds Bristol Turin Verona Naples Athens Sofia Zagreb Split "
          "Budapest").split()
NAMES = ("Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Karin Leo Mara Nils Olga Paul Rosa Simon Tina Viktor "
         "Wanda Yann Zoe Max").split()
MONTHS = "January February March April May June July August September October November December".split()

SENTENCES = (
    "The {item} for {city} leaves on {date} at {time} and costs {price} euro.",
    "On {date} at {time} a {item} goes to {city} for {price} euro.",
    "{name} sends a {item} to {city} on {date}, pick-up at {time}, price {price} euro.",
    "For {price} euro the {item} will be brought to {city} on {date} at {time}.",
    "At {time} on {date} we ship one {item} to {city}; the bill is {price} euro.",
    "{name} paid {price} euro for a {item} that travels to {city} on {date} at {time}.",
    "Please take the {item} to {city}. It is ready on {date} at {time}. You get {price} euro.",
    "The driver for {city} comes at {time} on {date} for the {item} and asks {price} euro.",
    "A {item} ordered by {name} reaches {city} on {date} at {time}, cost {price} euro.",
    "To {city}, {date}, {time}: one {item}, {price} euro, for {name}.",
)

# field: (names in questions, how the answer writes it)
FIELDS = {
    "item": (("item", "object"), "{item}"),
    "city": (("city", "place"), "{city}"),
    "day": (("day", "calendar day"), "{date}"),
    "date": (("date", "numeric day"), "{iso}"),
    "time": (("time", "hour"), "{time}"),
    "price": (("price", "cost"), "{price}"),
}
RECORD = ("item", "city", "date", "time", "price")
ASK = ("What is the {0}?", "Give the {0}.", "Tell me the {0}, please.")
ACKNOWLEDGE = ("Noted.", "Thank you, noted.", "All right.", "Understood.", "I will remember it.")


class Stream:
    """SplitMix64: the same numbers everywhere."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        return ((z ^ (z >> 31)) * n) >> 64

    def pick(self, seq):
        return seq[self.below(len(seq))]

    def sample(self, seq, k):
        rest = list(seq)
        return [rest.pop(self.below(len(rest))) for _ in range(k)]


def draw(rng):
    year, month, day = 2020 + rng.below(10), rng.below(12), 1 + rng.below(28)
    facts = {
        "item": rng.pick(ITEMS), "city": rng.pick(CITIES), "name": rng.pick(NAMES),
        "date": f"{day} {MONTHS[month]} {year}", "iso": f"{year}-{month + 1:02d}-{day:02d}",
        "time": f"{6 + rng.below(16):02d}:{5 * rng.below(12):02d}", "price": str(10 + rng.below(90)),
    }
    return rng.pick(SENTENCES).format(**facts), facts


def record(facts):
    return " | ".join(f"{key}: {FIELDS[key][1].format(**facts)}" for key in RECORD)


def question(rng, facts):
    """One question about one to three fields, and its answer in one of four forms."""
    count = (1, 2, 3, 3)[rng.below(4)]
    fields = []
    while len(fields) < count:  # words are harder to learn to copy than numbers, and asked for more often
        field = rng.pick(("item", "item", "city", "city", "day", "date", "time", "price"))
        if field not in fields:
            fields.append(field)
    labels = [rng.pick(FIELDS[f][0]) for f in fields]
    values = [FIELDS[f][1].format(**facts) for f in fields]
    form = rng.below(4)
    if form == 0:
        ask, answer = "With bars: ", " | ".join(f"{l}: {v}" for l, v in zip(labels, values))
    elif form == 1:
        ask, answer = "With signs: ", ", ".join(f"{l} = {v}" for l, v in zip(labels, values))
    elif form == 2:
        ask, answer = "In words: ", " ".join(f"The {l} is {v}." for l, v in zip(labels, values))
    else:
        ask, answer = "", ("It is " if len(fields) == 1 else "They are ") + ", ".join(values) + "."
    return ask + rng.pick(ASK).format(", ".join(labels)), answer


def corpus_row(rng, banned):
    sentence, facts = draw(rng)
    while sentence in banned:
        sentence, facts = draw(rng)
    messages = [{"role": "user", "content": sentence}]
    if rng.below(4) == 0:
        messages.append({"role": "assistant", "content": rng.pick(ACKNOWLEDGE)})
    for _ in range(3 + rng.below(3)):
        ask, answer = question(rng, facts)
        if messages[-1]["role"] == "user":
            messages[-1]["content"] += "\n" + ask
        else:
            messages.append({"role": "user", "content": ask})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def task_rows(n_train=800, n_heldout=100):
    rng, seen, rows = Stream(2024), set(), []
    while len(rows) < n_train + n_heldout:
        sentence, facts = draw(rng)
        if sentence not in seen:
            seen.add(sentence)
            rows.append({"input": sentence, "output": record(facts)})
    return rows[:n_train], rows[n_train:], seen


def write(path, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def main(argv):
    if len(argv) >= 3 and argv[1] == "rows":
        train, heldout, _ = task_rows()
        write(os.path.join(argv[2], "train.jsonl"), train)
        write(os.path.join(argv[2], "heldout.jsonl"), heldout)
    elif len(argv) >= 3 and argv[1] == "corpus":
        rows, seed = int(argv[3]) if len(argv) > 3 else 64000, int(argv[4]) if len(argv) > 4 else 7
        banned, rng = task_rows()[2], Stream(seed)
        write(argv[2], (corpus_row(rng, banned) for _ in range(rows)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv)
