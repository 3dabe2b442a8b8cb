#!/usr/bin/env python3
"""Makes golden/*.json: what the real packages say about every string and every tokenizer file.

    pip install tokenizers sentencepiece tiktoken transformers
    python3 tests/tokenizer/make_golden.py SHARED_DATA_FOLDER

Strings 0-45 are those of llama.cpp's models/ggml-vocab-*.gguf.inp (ggml-org/llama.cpp, MIT licence, Copyright (c)
2023-2024 The ggml authors); that file's list ends with an empty string, number 46. The rest are our own."""
import json
import os
import random
import sys

import sentencepiece
import tiktoken
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = sys.argv[1]

KHMER = "កាន់តែពិសេសអាច"
CHECK = ("\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫\ufe0f (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 "
         "3333 33333 333333 3333333 33333333 3.3 3..3 3...3 " + KHMER + "😁 ?我想在apple工作1314151天～ ------======= нещо на "
         "Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make "
         "it, 'D you like some tea? We'Ve a'lL")
LLAMA_CPP = [
    "ied 4 ½ months", "Führer", "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", "Hello world", " Hello world",
    "Hello World", " Hello World", " Hello World!", "Hello, world!", " Hello, world!", " this is 🦙.cpp",
    "w048 7tuijk dsdfhu", "нещо на Български", KHMER + "ខលចេញ",
    "🚀 (normal) 😶\u200d🌫\ufe0f (multiple emojis concatenated) ✅ (only emoji that has its own token)",
    "Hello", " Hello", "  Hello", "   Hello", "    Hello", "    Hello\n    Hello", " (", "\n =", "' era",
    "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～", "!!!!!!",
    *["3" * n for n in range(1, 10)], "Cửa Việt", " discards", CHECK, ""]
OURS = [
    # the white space on which Oniguruma and PCRE2 differ, and other odd spaces
    "a\u0085b \u0085 \u0085\u0085c", "a\u180eb \u180e c", "a\u200bb\u200b \u200b", "a\u00a0b\u00a0\u00a0c \u00a0d", "a\u2028b\u2029 c",
    "\u3000全角　空格\u3000", "x \r\n y\r\r\n\n  z\t\t\u000b\u000c w", "tail  ", "tail\n", " \n ",
    # case, contractions, long s, Kelvin
    "IT'S I'M WE'LL YOU'RE THEY'VE HE'D DON'T it'S", "'ſ 'S 'T 'ſx", "\u212a kelvin",
    # normal forms: composed, decomposed, compatibility, Hangul
    "e\u0301 é A\u030a Å ﬁ ① ｆｕｌｌ ｗｉｄｔｈ ½ ²", "각 \u1100\u1161\u11a8", "q\u0323\u0307 q\u0307\u0323", "İstanbul ΑΣ ß ẞ",
    # scripts, marks, digits of other scripts
    "مرحبا بالعالم", "हिन्दी में लिखा", "ภาษาไทย", "日本語のテキスト。", "한국어 문장입니다", "Ελληνικά ΚΕΦΑΛΑΙΑ", "١٢٣٤ ४५६ ５６７ Ⅳ ½", "a\u0300\u0301\u0302b",
    # code, numbers, punctuation
    "def f(x):\n    return x**2  # square\n\n\nclass A:\n\tpass", "for (int i = 0; i < n; ++i) { a[i] += b[i] * 2; }",
    "https://example.org/a?b=c&d=%20#e", "1234567890 12,345.67 -1e-5 0xDEADBEEF 3rd", "__init__ snake_case camelCase HTTPServer",
    "....,,,,;;;;::::---- (([[{{}}]])) \"quotes\" «guillemets» “curly” ‘single’", "$5 €6 £7 ¥8 5% 6‰", "a" * 70, "ab" * 40 + " " * 40 + "x",
    # specials written in the text
    "<|im_start|>user\nHi<|im_end|>\n", "<|endoftext|>a<|endoftext|>", "<s>[INST] x [/INST] y</s>", "<unk><pad><bos><eos>", "<start_of_turn>user<end_of_turn>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<0x41><0x0A>", "▁already ▁▁ marked▁", "▁", " ▁ ",
    # bytes 0..31, 127, NUL, noncharacters, private use, unassigned, astral letters
    "\u0001\u0002\u001b\u001f\u007f\u0080\u009f", "nul\u0000inside", "\ufffd\ufeffbom\ufffe", "\ue000\U0010ffff\U000e0001", "\U0001d400\U0001d7ce 𐍈 𝒳",
    "👨\u200d👩\u200d👧\u200d👦 🇩🇪 👍🏽", "mixed тext ωith 汉字 and عربى in one", "  leading and   inner  spaces ", "Answer: 5+3=8, so 8*12=96.\n#### 96",
]
STRINGS = LLAMA_CPP + OURS


def path(*p):
    return os.path.join(DATA, "tokenizers", *p)


def text_of(b):
    return b.decode("utf-8", "replace")


def case(file, encode, document, decode, family=None, merges=None, specials_in_text=None):
    out = {"file": file, "ids": [encode(s) for s in STRINGS], "document": [document(s) for s in STRINGS]}
    if specials_in_text:
        out["specials"] = [specials_in_text(s) for s in STRINGS]
    out["decoded"] = [decode(i) for i in out["ids"]]
    # text that survives is not written twice
    out["decoded"] = {str(k): d for k, (d, s) in enumerate(zip(out["decoded"], STRINGS)) if d != s}
    if family:
        out["family"] = family
    if merges:
        out["merges"] = merges
    return out


def hf_case(file, t, **more):
    def plain(s):
        t.encode_special_tokens = True
        ids = t.encode(s, add_special_tokens=False).ids
        t.encode_special_tokens = False
        return ids
    return case(file, plain, lambda s: t.encode(s).ids, lambda i: t.decode(i, skip_special_tokens=False),
                specials_in_text=lambda s: t.encode(s, add_special_tokens=False).ids, **more)


def spm_case(file):
    sp = sentencepiece.SentencePieceProcessor(model_file=path(file))
    return case(file, sp.encode, lambda s: None, lambda i: sp.decode(i).replace(" ⁇ ", "<unk>"))


def tiktoken_case(file):
    import base64
    ranks = {base64.b64decode(k): int(v) for k, v in (l.split() for l in open(path(file), "rb") if l.strip())}
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+")
    named = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
             "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    named += ["<|reserved_special_token_%d|>" % i for i in range(3, 3 + 256 - len(named))]
    e = tiktoken.Encoding("llama3", pat_str=pattern, mergeable_ranks=ranks,
                          special_tokens={s: len(ranks) + i for i, s in enumerate(named)})
    return case(file, lambda s: e.encode(s, disallowed_special=()),
                lambda s: [len(ranks)] + e.encode(s, allowed_special="all"), e.decode, family="llama3",
                specials_in_text=lambda s: e.encode(s, allowed_special="all"))


def qwen2():
    from transformers import Qwen2Tokenizer
    t = Qwen2Tokenizer.from_pretrained(path("qwen2")).backend_tokenizer
    return hf_case("qwen2", t)


def write(name, value):
    with open(os.path.join(HERE, "golden", name), "w") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def files():
    assets = "torchtune-assets/"
    cases = [qwen2(), spm_case("mistral-v3/mistral_instruct_tokenizer_240323.model.v3"),
             spm_case(assets + "m.model"), spm_case(assets + "sentencepiece.model"),
             tiktoken_case(assets + "tiktoken_small.model")]
    for name in ["tiny_bpe_tokenizer.json", "tokenizer.json", "tokenizer_gemma_cropped.json"]:
        cases.append(hf_case(assets + name, Tokenizer.from_file(path(assets + name))))
    write("files.json", {"strings": STRINGS, "cases": cases})


# ---- every component of tokenizer.json, over two small models whose merges cross every boundary --------------------

def trained(byte_level):
    texts = [s for s in STRINGS if len(s) < 300 and "\0" not in s]
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=not byte_level))
    special = ["<unk>", "<s>", "</s>"]
    if byte_level:
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        t.normalizer = normalizers.Replace(" ", "▁")
        special += ["<0x%02X>" % b for b in range(256)]
        alphabet = list(map(chr, range(33, 127))) + ["▁"]
    t.train_from_iterator(texts + [s.replace(" ", "▁") for s in texts] + texts, trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, limit_alphabet=256 if byte_level else 150, show_progress=False,
        min_frequency=1))
    return json.loads(t.to_str())["model"]


def token(id, content, **flags):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True, **flags}


def components(model, byte_model):
    split = lambda pattern, behavior, invert=False: {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
    metaspace = lambda scheme, cut=True: {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
    sequence = lambda key, *parts: {"type": "Sequence", key: list(parts)}
    llama_norm = sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    llama_dec = sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                         {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    bos = token(1, "<s>")
    n = max(model["vocab"].values()) + 1
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                                   "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
    bl = lambda prefix, regex: {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
    gpt4 = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    gpt4o = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
             r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
             r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    deepseek = sequence("pretokenizers", split({"Regex": "[\r\n]"}, "Isolated"),
                        split({"Regex": "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+"}, "Isolated"),
                        split({"Regex": "\\s?[!-/:-~！-／：-～‘-‟　-。]+"}, "Isolated"), split({"Regex": "\\s+$"}, "Isolated"),
                        split({"Regex": "[一-龥ࠀ-一가-퟿]+"}, "Isolated"), {"type": "Digits", "individual_digits": True}, bl(False, False))
    cases = [("plain", {}), ("fuse_unk", {"model": {"fuse_unk": True, "byte_fallback": False}}),
             ("unk", {"model": {"byte_fallback": False}}), ("no_unk", {"model": {"byte_fallback": False, "unk_token": None}}),
             ("ignore_merges", {"model": {"ignore_merges": True}, "pre_tokenizer": {"type": "WhitespaceSplit"}}),
             ("llama2", {"normalizer": llama_norm, "decoder": llama_dec, "post_processor": template,
                         "added_tokens": [token(0, "<unk>"), bos, token(2, "</s>")], "model": {"fuse_unk": True}}),
             ("post_sequence", {"post_processor": sequence("processors", bl(True, True), template)})]
    for norm in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase"]:
        cases.append((norm, {"normalizer": {"type": norm}}))
    for left in (False, True):
        for right in (False, True):
            cases.append(("strip", {"normalizer": {"type": "Strip", "strip_left": left, "strip_right": right}}))
    cases.append(("replace_regex", {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[a-c]+"}, "content": "_"}}))
    cases.append(("replace_empty", {"normalizer": {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "-"}}))
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in (False, True):
            cases.append(("split_string", {"pre_tokenizer": split({"String": "l"}, behavior, invert)}))
            cases.append(("split_regex", {"pre_tokenizer": split({"Regex": r"\s+|[0-9]"}, behavior, invert)}))
            cases.append(("split_words", {"pre_tokenizer": split({"Regex": r"\w\W?"}, behavior, invert)}))
        cases.append(("punctuation", {"pre_tokenizer": {"type": "Punctuation", "behavior": behavior}}))
    cases.append(("split_empty", {"pre_tokenizer": split({"Regex": "(?=[A-Z])|z*"}, "Isolated")}))
    cases.append(("split_gemma", {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                                  "pre_tokenizer": split({"String": " "}, "MergedWithPrevious")}))
    for scheme in ["first", "always", "never"]:
        for cut in (False, True):
            cases.append(("metaspace", {"pre_tokenizer": metaspace(scheme, cut), "decoder": metaspace(scheme, cut),
                                        "added_tokens": [bos]}))
    for individual in (False, True):
        cases.append(("digits", {"pre_tokenizer": {"type": "Digits", "individual_digits": individual}}))
    cases += [("whitespace", {"pre_tokenizer": {"type": "Whitespace"}}), ("whitespace_split", {"pre_tokenizer": {"type": "WhitespaceSplit"}}),
              ("sequence", {"pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"},
                                                      sequence("pretokenizers", {"type": "Digits", "individual_digits": True}))})]
    for prefix in (False, True):
        for regex in (False, True):
            cases.append(("byte_level", {"byte_model": True, "pre_tokenizer": bl(prefix, regex), "decoder": bl(prefix, regex)}))
    cases += [("gpt4", {"byte_model": True, "pre_tokenizer": sequence("pretokenizers", split({"Regex": gpt4}, "Removed", True), bl(False, False)),
                        "decoder": bl(False, False)}),
              ("gpt4o", {"byte_model": True, "pre_tokenizer": sequence("pretokenizers", split({"Regex": gpt4o}, "Isolated"), bl(False, False)),
                         "decoder": bl(False, False)}),
              ("deepseek", {"byte_model": True, "pre_tokenizer": deepseek, "decoder": bl(False, False)})]
    for flags in [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True},
                  {"normalized": True}, {"normalized": True, "lstrip": True, "rstrip": True}, {"special": False},
                  {"special": False, "single_word": True, "rstrip": True}]:
        cases.append(("added", {"normalizer": {"type": "Lowercase"} if flags.get("normalized") else None,
                                "added_tokens": [token(1, "<s>", **flags), token(n, "hello", **flags), token(n + 1, "Hello w", **flags),
                                                 token(n + 2, "world", **flags), token(n + 3, "444", **flags), token(n + 4, "  ", **flags)]}))
    cases.append(("added_llama", {"normalizer": llama_norm, "decoder": llama_dec,
                                  "added_tokens": [bos, token(n, "Hello y", normalized=True, special=False), token(n + 1, "[INST]", special=False)]}))
    cases.append(("decoder_strip", {"decoder": sequence("decoders", {"type": "Strip", "content": "l", "start": 2, "stop": 0}, {"type": "Fuse"})}))
    cases.append(("decoder_replace", {"decoder": sequence("decoders", {"type": "ByteFallback"}, {"type": "Replace", "pattern": {"Regex": "[a-f]+"}, "content": "#"},
                                                          {"type": "Fuse"})}))
    return cases


def build(model, byte_model, parts):
    m = dict(byte_model if parts.get("byte_model") else model)
    m.update(parts.get("model", {}))
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": parts.get("added_tokens", []),
            **{k: parts.get(k) for k in ["normalizer", "pre_tokenizer", "post_processor", "decoder"]}, "model": m}


def pipelines():
    model, byte_model = trained(False), trained(True)
    extra = ["Hello Hello  hello<s> world", "a<s>b <s> c", "  <s>  <s>  ", "shello hellos hello_ hello! ,hello,", "xHello worldx Hello w", "<s>hi", "\u00a0hello\u2003444 4444 x444"]
    strings = [s for s in LLAMA_CPP[:41:2] + OURS if "\0" not in s and len(s) < 64] + extra
    cases = []
    for name, parts in components(model, byte_model):
        t = Tokenizer.from_str(json.dumps(build(model, byte_model, parts)))
        if any(a["special"] for a in parts.get("added_tokens", [])):
            t.encode_special_tokens = True
            plain = [t.encode(s, add_special_tokens=False).ids for s in strings]
            t.encode_special_tokens = False
        else:
            plain = None
        document = [t.encode(s).ids for s in strings]
        cases.append({"name": name, "parts": {k: v for k, v in parts.items() if v is not None}, "document": document, **({"ids": plain} if plain else {}),
                      "decoded": [t.decode(i, skip_special_tokens=True) for i in document]})
        if len(cases) > 1 and not any(k in parts for k in ("decoder", "byte_model", "post_processor")):
            del cases[-1]["decoded"]
    write("pipelines.json", {"model": model, "byte_model": byte_model, "strings": strings, "cases": cases})


# ---- every row of the data sets ------------------------------------------------------------------------------------

def strings_in(v):
    if isinstance(v, str):
        yield v
    for member in v.values() if isinstance(v, dict) else v if isinstance(v, list) else []:
        yield from strings_in(member)


def texts(name):
    with open(os.path.join(DATA, name), encoding="utf-8", newline="") as f:
        if name.endswith(".txt"):
            return [f.read()]
        if name.endswith(".jsonl"):
            return [s for line in f for s in strings_in(json.loads(line))]
        return list(strings_in(json.load(f)))


def rows():
    """[count, hash] of all ids in order; hash = (hash ^ id) * FNV prime, 64 bits."""
    from transformers import Qwen2Tokenizer
    mistral = "mistral-v3/mistral_instruct_tokenizer_240323.model.v3"
    fast = Qwen2Tokenizer.from_pretrained(path("qwen2")).backend_tokenizer
    sp = sentencepiece.SentencePieceProcessor(model_file=path(mistral))
    encoders = {"qwen2": lambda s: fast.encode(s, add_special_tokens=False).ids, mistral: sp.encode}
    out = {}
    for name in ["gsm8k/train.jsonl", "gsm8k/test.jsonl", "instruct/alpaca_en_demo.json", "instruct/identity.json", "text/tinyshakespeare.txt"]:
        for which, encode in encoders.items():
            n, h = 0, 0xcbf29ce484222325
            for s in texts(name):
                ids = encode(s)
                n += len(ids)
                for i in ids:
                    h = (h ^ i) * 0x100000001b3 & (1 << 64) - 1
            out.setdefault(name, {})[which] = [n, "%016x" % h]
    write("rows.json", out)


files()
pipelines()
rows()
