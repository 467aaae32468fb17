"""A sliding window with a softcap as one FlexAttention node: drawn, lowered, and run beside numpy."""

import numpy as np
import onnxruntime as ort

from aotpack import flex

model = flex.attention((1, 4, 512, 64), score_mod=flex.sliding_window(128) & flex.softcap(30.0))
(node,) = flex.read(model)
mask = flex.understand(node, opset=24).mask
assert mask is not None, "the lengths are known, and the mods depend on positions alone"
print(flex.to_text(mask))

lowered, (record,) = flex.lower(model, flex.Capabilities())
print(f"{record.lowering}: {record.why}")

rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((1, 4, 512, 64)).astype(np.float32) for _ in "QKV")
session = ort.InferenceSession(lowered.SerializeToString(), providers=["CPUExecutionProvider"])
difference = np.abs(session.run(None, {"Q": q, "K": k, "V": v})[0] - flex.reference(node, q, k, v)).max()
print(f"largest difference to numpy: {difference:.1e}")
