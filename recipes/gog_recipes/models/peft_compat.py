"""Makes peft work beside the torchao version that torchtune needs. Import this module before applying an adapter.

torchtune 0.6.1 imports torchao and breaks with 0.16 or newer; peft 0.19 and newer raises when it finds torchao older
than 0.16. gog uses peft on ordinary linears only, so peft's own check for torchao is replaced by one that finds none. Its
modules import that check by name, so it is replaced in all three of them.
"""

import peft.import_utils
import peft.tuners.lora.torchao
import peft.utils.quantization_utils


def _no_torchao() -> bool:
    return False


for _module in (peft.import_utils, peft.tuners.lora.torchao, peft.utils.quantization_utils):
    _module.is_torchao_available = _no_torchao
