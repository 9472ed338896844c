import json
import sys
import time
from pathlib import Path

import numpy as np

# Gradient descent for y = 4x + 3, told as it goes
rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, 1000)
y = 4 * x + 3
w = b = 0.0
for epoch in range(1, 301):
    error = w * x + b - y
    w -= 0.1 * 2 * (error * x).mean()
    b -= 0.1 * 2 * error.mean()
    if epoch % 100 == 0:
        print(f"epoch {epoch} loss {np.mean(error**2):.6f}", flush=True)
    if epoch == 100:
        while not Path("continue").exists():
            time.sleep(0.05)

Path("weights.json").write_text(json.dumps({"w": w, "b": b}))
print("warning: no validation set given", file=sys.stderr)
