"""peft and torchtune cannot agree on torchao: settle it, once, here.

torchtune 0.6.1 imports torchao and breaks with 0.16 or newer; peft 0.19 and newer raises when it meets torchao older
than 0.16. We use peft on ordinary linears only, so peft is told that torchao is absent. Its modules bind the question
by name at import, hence the three places. Import this module before applying an adapter.
"""

import peft.import_utils
import peft.tuners.lora.torchao
import peft.utils.quantization_utils


def _no_torchao() -> bool:
    return False


for _module in (peft.import_utils, peft.tuners.lora.torchao, peft.utils.quantization_utils):
    _module.is_torchao_available = _no_torchao
