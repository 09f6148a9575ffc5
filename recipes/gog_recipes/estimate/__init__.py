"""How much memory a run needs on each GPU, from the configuration of its base model alone (`gog estimate`).

The recipes' own code runs on tensors without storage (`shapes`) while torch's memory tracker counts what would be
allocated (`meter`), so a change of the code changes the estimate. Decoder layers are alike, so models of two small depths
are traced and the bytes of each item are continued to the real depth (`trace`).
"""
